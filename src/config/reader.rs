//! Reads typed values out of the environment and collects what is wrong with them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::str::FromStr;

use secrecy::SecretString;

use super::Problems;

/// Every setting that the bridge reads: name, default (or what it needs), meaning.
///
/// The table in the README is checked against this one.
pub const SETTINGS: &[(&str, &str, &str)] = &[
    ("STACK_BASE_URL", "required", "address of the cluster, with or without `/api/v3`"),
    (
        "STACK_IDENTITY_URL",
        "`STACK_BASE_URL`",
        "address of the Identity Server where it is another one (The Things Stack Cloud and Sandbox: the eu1 cluster)",
    ),
    ("STACK_APPLICATION_ID", "required", "the application that this bridge serves"),
    (
        "STACK_API_KEY",
        "required",
        "API key of that application, with the rights to view and edit devices, edit device keys, read traffic and write downlinks",
    ),
    (
        "STACK_EVENTS_TARGET",
        "`api`",
        "`api`: calls to the API, any edition; `package`: events are posted to the azureiothub package of Cloud and Enterprise",
    ),
    ("SYNC_DELETE", "`true`", "whether a device deleted in IoT Hub is deleted in The Things Stack"),
    (
        "KEEP_ROOT_KEYS",
        "`false`",
        "whether root keys stay in the twin's tags once the device is registered (with `STACK_EVENTS_TARGET=package` they always stay)",
    ),
    (
        "IOTHUB_CONNECTION_STRING",
        "one of the two",
        "connection string of a shared access policy with DeviceConnect; wins over the three settings below (`GatewayHostName` is honoured)",
    ),
    ("IOTHUB_HOSTNAME", "or these three", "host name of the hub, such as `acme.azure-devices.net`"),
    ("IOTHUB_POLICY_NAME", "", "name of the shared access policy"),
    ("IOTHUB_POLICY_KEY", "", "base64 key of that policy"),
    (
        "IOTHUB_CREDENTIAL",
        "none: the policy",
        "`managedidentity`: registry and twins are reached with the app's managed identity; device sessions need the policy all the same",
    ),
    ("IOTHUB_CLIENT_ID", "system-assigned", "client id of the user-assigned identity for `IOTHUB_CREDENTIAL`"),
    (
        "DEVICE_ID_PREFIX",
        "none",
        "what stands before the ids of The Things Stack in those of IoT Hub, such as `lorawan-`: on a hub that others use too, the bridge then speaks as, creates and follows such devices only",
    ),
    (
        "IOTHUB_GATEWAY_HOSTNAME",
        "the hub",
        "host to dial in place of the hub (private endpoint, proxy); names and tokens stay the hub's",
    ),
    ("IOTHUB_MQTT_PORT", "`8883`", "port of MQTT over TLS"),
    ("IOTHUB_HTTPS_PORT", "`443`", "port of the service API"),
    ("IOTHUB_CA_FILE", "the hub's public roots", "PEM file with the roots to trust in their place"),
    (
        "IOTHUB_PIPELINE",
        "`connack`",
        "`connack`: wait for the hub's acceptance, then send; `connect`: send at once, a round trip less (untried on the live hub)",
    ),
    ("IOTHUB_SKU", "`S1`", "tier of the hub: `F1`, `S1`, `S2`, `S3`"),
    ("IOTHUB_UNITS", "`1`", "units of that tier, 1 to 200"),
    ("SESSION_LINGER_MS", "`250`", "how long an idle device session stays open, 0 to 5000"),
    (
        "StackEvents",
        "one of the two",
        "connection string of the Event Hubs namespace (`UseDevelopmentEmulator=true` is honoured)",
    ),
    (
        "StackEvents__fullyQualifiedNamespace",
        "or this",
        "host name of the namespace, reached with the app's managed identity; wins over `StackEvents`",
    ),
    ("StackEvents__clientId", "system-assigned", "client id of the user-assigned identity for `StackEvents`"),
    (
        "EVENTHUBS_ENDPOINT",
        "the namespace",
        "address to dial in place of the namespace when it is reached with the managed identity (private endpoint, proxy, emulator): `amqps://host[:port]`, on this machine `amqp://` too; names and tokens stay the namespace's",
    ),
    ("WEBHOOK_SECRET", "none", "value that the header `X-Webhook-Secret` of a webhook must carry"),
    ("WEBHOOK_SECRET_PREVIOUS", "none", "a second value that is accepted during a rotation"),
    (
        "TELEMETRY_BODY",
        "`full`",
        "`full`: the message as The Things Stack sent it; `compact`: without the metadata of all gateways but the best",
    ),
    ("TELEMETRY_MESSAGES", "all", "comma-separated message types that become telemetry, or `all` or `none`"),
    ("TWIN_MESSAGES", "all", "comma-separated message types that update the reported twin, or `all` or `none`"),
    ("TWIN_LAST_SEEN_INTERVAL_S", "`3600`", "a twin write for `lastSeenAt` alone happens at most this often"),
    ("DEDUPE_WINDOW_S", "`900`", "how long an instance remembers a webhook to recognise its repetition"),
    (
        "PARKED_MAX_ATTEMPTS",
        "`20`",
        "failed attempts after which a parked uplink is dead-lettered; attempts in an outage, when nothing passes, do not count",
    ),
    ("LOG_LEVEL", "`info`", "a level or a filter such as `info,tts_iot_hub::iot_hub=debug`"),
    (
        "LOG_FORMAT",
        "`text`",
        "`text`: for people; `json`: a JSON object per line, as the queries of infra/monitoring read it",
    ),
];

/// Read by a command and not by the bridge, so it is no app setting.
pub(super) const FUNCTION_KEY: &str = "FUNCTION_KEY";

/// Reads settings by name; remembers every problem.
pub(super) struct Reader {
    vars: HashMap<String, String>,
    problems: BTreeMap<usize, Problems>,
}

impl Reader {
    pub(super) fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { vars: vars.into_iter().collect(), problems: BTreeMap::new() }
    }

    pub(super) fn problem(&mut self, setting: &str, what: impl Display) {
        let place = SETTINGS.iter().position(|(name, ..)| *name == setting).unwrap_or(usize::MAX);
        self.problems.entry(place).or_default().push(setting, what);
    }

    /// The value, trimmed; an empty one counts as absent. An unresolved Key Vault reference is a problem and reads as absent.
    pub(super) fn optional(&mut self, setting: &str) -> Option<String> {
        debug_assert!(
            setting.starts_with("FUNCTIONS_")
                || setting == FUNCTION_KEY
                || SETTINGS.iter().any(|(name, ..)| *name == setting),
            "{setting} is not in the table of settings"
        );
        let value = self.vars.get(setting)?.trim().to_owned();
        if is_key_vault_reference(&value) {
            self.problem(
                setting,
                "the Key Vault reference was not resolved; give the app's identity the role Key Vault Secrets User on the vault, check the secret's name, and restart the app",
            );
            return None;
        }
        (!value.is_empty()).then_some(value)
    }

    /// Whether the setting is given at all, resolved or not: an unresolved one has been reported already.
    pub(super) fn is_given(&self, setting: &str) -> bool {
        self.vars.get(setting).is_some_and(|value| !value.trim().is_empty())
    }

    pub(super) fn required(&mut self, setting: &str, remedy: &str) -> Option<String> {
        let value = self.optional(setting);
        if value.is_none() && !self.is_given(setting) {
            self.problem(setting, format_args!("is missing; {remedy}"));
        }
        value
    }

    pub(super) fn secret(&mut self, setting: &str) -> Option<SecretString> {
        self.optional(setting).map(SecretString::from)
    }

    /// A value of a small set of words, or the default.
    pub(super) fn choice<T: Copy>(&mut self, setting: &str, choices: &[(&str, T)], default: T) -> Option<T> {
        let Some(value) = self.optional(setting) else { return Some(default) };
        let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&value)).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.problem(setting, format_args!("{} is none of {}", shown(&value), words.join(", ")));
        }
        found
    }

    pub(super) fn flag(&mut self, setting: &str, default: bool) -> Option<bool> {
        self.choice(setting, &[("true", true), ("false", false)], default)
    }

    /// A number within bounds, or the default.
    pub(super) fn number<T>(&mut self, setting: &str, bounds: std::ops::RangeInclusive<T>, default: T) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(value) = self.optional(setting) else { return Some(default) };
        let number = value.parse().ok().filter(|number| bounds.contains(number));
        if number.is_none() {
            self.problem(
                setting,
                format_args!("{} is no whole number from {} to {}", shown(&value), bounds.start(), bounds.end()),
            );
        }
        number
    }

    /// A bare host name in lower case. `setting` is where the name was found.
    pub(super) fn hostname(&mut self, setting: &str, name: &str) -> Option<String> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if name.split('.').all(is_label) {
            return Some(name.to_ascii_lowercase());
        }
        self.problem(
            setting,
            format_args!("{} is no host name; give it bare, such as `acme.azure-devices.net`", shown(name)),
        );
        None
    }

    pub(super) fn port(&mut self) -> Option<u16> {
        const NAME: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";
        let remedy = "the Functions host sets it; to start the handler by hand, set it to a free port";
        let value = self.required(NAME, remedy)?;
        let port = value.parse().ok().filter(|port| *port != 0);
        if port.is_none() {
            self.problem(NAME, format_args!("{} is no port; {remedy}", shown(&value)));
        }
        port
    }

    /// The finished configuration, or every problem.
    pub(super) fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, Problems> {
        let mut all = Problems::default();
        for problems in self.problems.into_values() {
            all.append(problems);
        }
        match build() {
            Some(config) if all.is_empty() => Ok(config),
            _ => Err(all),
        }
    }
}

fn is_key_vault_reference(value: &str) -> bool {
    const START: &str = "@Microsoft.KeyVault(";
    value.get(..START.len()).is_some_and(|start| start.eq_ignore_ascii_case(START))
}

/// A value as a problem repeats it: a long one may be a credential that was given to the wrong setting.
pub(super) fn shown(value: &str) -> String {
    /// The longest word of any setting is shorter, every key of Azure and The Things Stack longer.
    const LONGEST_SHOWN: usize = 32;
    if value.len() <= LONGEST_SHOWN { format!("`{value}`") } else { "its value".to_owned() }
}
