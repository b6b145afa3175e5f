//! The app settings of the handler.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::StartError;
use super::minted::random_word;
use crate::entra::actions;
use crate::event_hubs::AmqpServer;
use crate::happenings::Happenings;
use crate::infra::{Infra, Secret, SecretValue};
use crate::iot_hub::{IotHub, Policy};

pub(super) const WEBHOOK_SECRET: &str = "WEBHOOK_SECRET";
/// The template's parameter that takes the API key of The Things Stack.
const STACK_API_KEY: &str = "stackApiKey";

type Settings = BTreeMap<String, String>;

/// The application that a template's bridge works for: its setting `STACK_APPLICATION_ID`.
///
/// # Errors
/// If it has none.
pub(super) fn application_of(infra: &Infra) -> Result<&str, StartError> {
    let setting = infra.app.settings.get("STACK_APPLICATION_ID").map(String::as_str);
    setting.filter(|id| !id.is_empty()).ok_or_else(|| "the template's app has no setting STACK_APPLICATION_ID".into())
}

/// What was made up for the secure parameters of a template, by their names: each once, however many settings refer to it.
type Minted = BTreeMap<String, String>;

/// What runs, and how it is reached.
pub(super) struct Started<'a> {
    pub(super) stack_url: String,
    pub(super) application_id: &'a str,
    pub(super) api_key: &'a str,
    pub(super) hub_host: &'a str,
    pub(super) hub: &'a IotHub,
    pub(super) event_hubs: &'a AmqpServer,
    pub(super) ca_file: &'a Path,
    pub(super) policies: &'a [Policy],
}

impl Started<'_> {
    /// Settings that lead to The Things Stack and to the hub of this machine, whatever else is set.
    fn reach(&self) -> Settings {
        let settings = [
            ("STACK_BASE_URL", self.stack_url.clone()),
            ("IOTHUB_GATEWAY_HOSTNAME", "localhost".to_owned()),
            ("IOTHUB_MQTT_PORT", self.hub.mqtt_addr().port().to_string()),
            ("IOTHUB_HTTPS_PORT", self.hub.https_addr().port().to_string()),
            ("IOTHUB_CA_FILE", self.ca_file.display().to_string()),
        ];
        settings.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Keys and connection strings for everything.
    pub(super) fn plain_settings(&self) -> Settings {
        let mut settings = self.reach();
        let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
        set("STACK_APPLICATION_ID", self.application_id.to_owned());
        set("STACK_API_KEY", self.api_key.to_owned());
        set("IOTHUB_HOSTNAME", self.hub_host.to_owned());
        set("StackEvents", self.event_hubs.connection_string());
        set(WEBHOOK_SECRET, random_word(16));
        if let Some(policy) = self.policies.iter().find(|policy| policy.name == "tts-bridge") {
            set("IOTHUB_POLICY_NAME", policy.name.clone());
            set("IOTHUB_POLICY_KEY", STANDARD.encode(&policy.key));
        }
        settings
    }

    /// The settings of a template, with its references to Key Vault resolved as the platform does. Changed and added is only what
    /// leads to this machine.
    ///
    /// # Errors
    /// If a reference names a secret that is not there, or a secret is the key of a policy that is not there.
    pub(super) fn settings_of(&self, infra: &Infra, happenings: &Happenings) -> Result<Settings, StartError> {
        let mut settings = infra.app.settings.clone();
        let mut minted = Minted::from([(STACK_API_KEY.to_owned(), self.api_key.to_owned())]);
        for value in settings.values_mut() {
            if let Some(reference) = Reference::parse(value)
                && let Some(secret) = self.resolve(&reference, infra, happenings, &mut minted)?
            {
                *value = secret;
            }
        }
        let identity_server = settings.get_mut("STACK_IDENTITY_URL");
        if let Some(url) = identity_server {
            url.clone_from(&self.stack_url);
        }
        settings.extend(self.reach());
        let endpoint = format!("amqp://localhost:{}", self.event_hubs.addr().port());
        settings.insert("EVENTHUBS_ENDPOINT".to_owned(), endpoint);
        Ok(settings)
    }

    /// The secret behind a reference; `None` if the app may not read it, for then the platform leaves the text as it is
    /// (<https://learn.microsoft.com/azure/app-service/app-service-key-vault-references#troubleshoot-key-vault-references>).
    fn resolve(
        &self,
        reference: &Reference<'_>,
        infra: &Infra,
        happenings: &Happenings,
        minted: &mut Minted,
    ) -> Result<Option<String>, StartError> {
        let found = infra.secrets.iter().find(|secret| reference.means(secret));
        let secret =
            found.ok_or_else(|| format!("the template has no secret {reference:?} that a setting refers to"))?;
        let access = infra.access(&secret.vault_id, &[], happenings);
        let place = format!("secrets/{}", secret.name);
        let reader = infra.app.vault_reader.as_deref();
        if reader.is_none_or(|reader| access.check(reader, &[actions::SECRETS_GET], &place).is_err()) {
            return Ok(None);
        }
        Ok(Some(match &secret.value {
            SecretValue::Parameter(name) => minted.entry(name.clone()).or_insert_with(|| random_word(16)).clone(),
            SecretValue::PolicyKey(name) => {
                let policy = self.policies.iter().find(|policy| policy.name == *name);
                STANDARD.encode(&policy.ok_or_else(|| format!("the hub has no policy {name}"))?.key)
            }
        }))
    }
}

/// A reference to a secret, in either form
/// (<https://learn.microsoft.com/azure/app-service/app-service-key-vault-references#understand-source-app-settings-from-key-vault>).
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    vault: &'a str,
    secret: &'a str,
}

impl<'a> Reference<'a> {
    fn parse(value: &'a str) -> Option<Self> {
        let inner = value.strip_prefix("@Microsoft.KeyVault(")?.strip_suffix(')')?;
        let field = |name: &str| {
            let mut fields = inner.split(';').filter_map(|field| field.split_once('='));
            fields.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        if let Some(uri) = field("SecretUri") {
            let (host, path) = uri.strip_prefix("https://")?.split_once('/')?;
            let secret = path.strip_prefix("secrets/")?.split('/').next()?;
            return Some(Self { vault: host.split('.').next()?, secret });
        }
        Some(Self { vault: field("VaultName")?, secret: field("SecretName")? })
    }

    fn means(&self, secret: &Secret) -> bool {
        let vault = secret.vault_id.rsplit('/').next().unwrap_or_default();
        vault.eq_ignore_ascii_case(self.vault) && secret.name.eq_ignore_ascii_case(self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_key_vault_have_two_forms() {
        for (value, expected) in [
            ("@Microsoft.KeyVault(VaultName=v;SecretName=s)", Some(("v", "s"))),
            ("@Microsoft.KeyVault(VaultName=v;SecretName=s;SecretVersion=1)", Some(("v", "s"))),
            ("@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/s)", Some(("v", "s"))),
            ("@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/s/123)", Some(("v", "s"))),
            ("@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/keys/s)", None),
            ("@Microsoft.KeyVault(VaultName=v)", None),
            ("plain", None),
        ] {
            let parsed = Reference::parse(value);
            assert_eq!(parsed, expected.map(|(vault, secret)| Reference { vault, secret }), "{value}");
        }
    }

    #[test]
    fn a_reference_means_one_secret_of_one_vault() {
        let secret = Secret {
            vault_id: "/subscriptions/s/providers/Microsoft.KeyVault/vaults/V".to_owned(),
            name: "s".to_owned(),
            value: SecretValue::Parameter("p".to_owned()),
        };
        for (vault, name, means) in [("v", "S", true), ("w", "s", false), ("v", "t", false)] {
            assert_eq!(Reference { vault, secret: name }.means(&secret), means, "{vault} {name}");
        }
    }
}
