//! What the command `webhook install` reads: the settings of The Things Stack, and what the webhook's headers carry.

use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

use super::reader::FUNCTION_KEY;
use super::{Problems, Reader, StackConfig};

/// Longest value of a webhook's header (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/applicationserver_web.proto`).
const MAX_HEADER_CHARS: usize = 4096;

/// What to install a webhook with.
#[derive(Clone, Debug)]
pub struct WebhookInstallConfig {
    /// The Things Stack. The command needs an API key with more rights than the bridge.
    pub stack: StackConfig,
    /// The function key of UplinkIngress: an argument would show it to everyone on the machine.
    pub function_key: SecretString,
    /// The setting `WEBHOOK_SECRET`, if it is given.
    pub webhook_secret: Option<SecretString>,
}

impl WebhookInstallConfig {
    /// Reads the variables of the process.
    ///
    /// # Errors
    /// All problems at once, each with what to do.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, Problems> {
        let mut read = Reader::new(vars);
        let stack = StackConfig::read(&mut read);
        let webhook_secret = read.optional("WEBHOOK_SECRET");
        let webhook_secret = webhook_secret.map(|value| header(&mut read, "WEBHOOK_SECRET", value));
        let function_key = read.required(
            FUNCTION_KEY,
            "without it the Functions host refuses every webhook; fetch it with `az functionapp function keys list \
             --resource-group GROUP --name APP --function-name UplinkIngress --query default --output tsv`",
        );
        let function_key = function_key.and_then(|value| header(&mut read, FUNCTION_KEY, value));
        read.finish(|| {
            let webhook_secret = match webhook_secret {
                Some(secret) => Some(secret?),
                None => None,
            };
            Some(Self { stack: stack?, function_key: function_key?, webhook_secret })
        })
    }
}

fn header(read: &mut Reader, setting: &str, value: String) -> Option<SecretString> {
    let value = SecretString::from(value);
    let text = value.expose_secret();
    if text.len() <= MAX_HEADER_CHARS && text.is_ascii() && HeaderValue::from_str(text).is_ok() {
        return Some(value);
    }
    read.problem(setting, "cannot stand in a header: at most 4096 printable ASCII characters can");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: [(&str, &str); 3] = [
        ("STACK_BASE_URL", "https://acme.example.net"),
        ("STACK_APPLICATION_ID", "cold-store"),
        ("STACK_API_KEY", "NNSXS.A.B"),
    ];

    fn read(more: &[(&str, &str)]) -> Result<WebhookInstallConfig, Problems> {
        let all = STACK.iter().chain(more);
        WebhookInstallConfig::from_vars(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_stack_and_the_function_key_are_enough() {
        let config = read(&[("FUNCTION_KEY", "f-key")]).expect("enough");
        assert_eq!(config.function_key.expose_secret(), "f-key");
        assert!(config.webhook_secret.is_none() && !format!("{config:?}").contains("f-key"));
        let config = read(&[("FUNCTION_KEY", "f"), ("WEBHOOK_SECRET", "s")]).expect("enough");
        assert_eq!(config.webhook_secret.map(|secret| secret.expose_secret().to_owned()).as_deref(), Some("s"));
    }

    #[test]
    fn every_problem_is_told_at_once_and_no_value_of_a_secret() {
        let problems = WebhookInstallConfig::from_vars([]).expect_err("nothing is given");
        let named: Vec<_> = problems.lines().iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(named, ["STACK_BASE_URL", "STACK_APPLICATION_ID", "STACK_API_KEY", "FUNCTION_KEY"]);
        assert!(problems.lines()[3].contains("az functionapp function keys list"), "{problems}");
        for bad in ["s3cret\u{e9}", "s3cret\nx", &"s3cret".repeat(1000)] {
            let problems = read(&[("FUNCTION_KEY", bad), ("WEBHOOK_SECRET", bad)]).expect_err("no header");
            assert_eq!(problems.lines().len(), 2, "{problems}");
            assert!(!problems.to_string().contains("s3cret"), "{problems}");
        }
        let reference = "@Microsoft.KeyVault(SecretUri=https://v/s)";
        let problems = read(&[("FUNCTION_KEY", "f"), ("WEBHOOK_SECRET", reference)]).expect_err("unresolved");
        assert!(problems.to_string().contains("Key Vault"), "{problems}");
    }
}
