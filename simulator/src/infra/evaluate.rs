//! What expressions mean once the resources are there: ids and names that the platform would give are made up here.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::expression::{Expression, Unreadable};
use crate::entra::ManagedIdentity;

/// The tenant of the simulator; any will do.
const TENANT: &str = "11111111-1111-1111-1111-111111111111";

/// The version of every secret; any will do.
const SECRET_VERSION: &str = "22222222222222222222222222222222";

/// The longest text that a function may make, as the platform has it for texts of a template
/// (<https://learn.microsoft.com/azure/azure-resource-manager/templates/best-practices#template-limits>: 131,072 characters).
const MAX_TEXT_BYTES: usize = 131_072;

/// Why an expression has no value here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A function that is not known.
    #[error("the function {0}() is not known to the simulator: teach it in simulator/src/infra/evaluate.rs")]
    UnknownFunction(String),
    /// A secret outside of Key Vault.
    #[error("{0}() gives a secret: the simulator takes those as values of Key Vault secrets only")]
    Secret(String),
    /// What is asked of a resource is not known.
    #[error("{member} of {resource} is not known to the simulator: teach it in simulator/src/infra/evaluate.rs")]
    UnknownMember {
        /// The resource id, or the function.
        resource: String,
        /// What is asked.
        member: String,
    },
    /// A function makes more than is taken.
    #[error("{0}() makes a text of more than {MAX_TEXT_BYTES} bytes")]
    TooLong(String),
    /// A function cannot take its arguments.
    #[error("{0}() cannot take these arguments")]
    Arguments(String),
}

/// Evaluates expressions, with what the platform would know.
#[derive(Debug)]
pub(super) struct Evaluator {
    /// By resource id in lower case.
    identities: BTreeMap<String, ManagedIdentity>,
}

impl Evaluator {
    /// An evaluator that mints ids for these user-assigned identities.
    pub(super) fn new(identities: impl Iterator<Item = String>) -> Self {
        let mint = || uuid::Uuid::new_v4().to_string();
        let identities = identities.map(|resource_id| {
            let key = resource_id.to_ascii_lowercase();
            (key, ManagedIdentity { resource_id, client_id: mint(), principal_id: mint() })
        });
        Self { identities: identities.collect() }
    }

    pub(super) fn identities(&self) -> Vec<ManagedIdentity> {
        self.identities.values().cloned().collect()
    }

    /// A value of the snapshot as a text.
    pub(super) fn text(&self, value: &str) -> Result<String, EvaluateError> {
        text_of(&self.value(&Expression::read(value)?)?).ok_or_else(|| EvaluateError::Arguments("text".to_owned()))
    }

    pub(super) fn value(&self, expression: &Expression) -> Result<Value, EvaluateError> {
        match expression {
            Expression::Text(text) => Ok(json!(text)),
            Expression::Integer(number) => Ok(json!(number)),
            Expression::Member(object, name) => {
                let value = self.value(object)?;
                let member = value.as_object().and_then(|members| {
                    members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, member)| member.clone())
                });
                member
                    .ok_or_else(|| EvaluateError::UnknownMember { resource: self.origin(object), member: name.clone() })
            }
            Expression::Call(function, arguments) => self.call(function, arguments),
        }
    }

    /// What a value was read from: a resource id, or the function.
    fn origin(&self, expression: &Expression) -> String {
        match expression {
            Expression::Member(object, _) => self.origin(object),
            Expression::Call(_, arguments)
                if let Some(Ok(Value::String(id))) = arguments.first().map(|id| self.value(id)) =>
            {
                id
            }
            Expression::Call(function, _) => format!("{function}()"),
            Expression::Text(_) | Expression::Integer(_) => "a text".to_owned(),
        }
    }

    fn call(&self, function: &str, arguments: &[Expression]) -> Result<Value, EvaluateError> {
        let name = function.to_ascii_lowercase();
        if matches!(name.as_str(), "parameters" | "listkeys" | "listsecrets" | "listaccountsas") {
            return Err(EvaluateError::Secret(function.to_owned()));
        }
        let wrong = || EvaluateError::Arguments(function.to_owned());
        let too_long = || EvaluateError::TooLong(function.to_owned());
        let values = || arguments.iter().map(|argument| self.value(argument)).collect::<Result<Vec<_>, _>>();
        let texts = || values()?.iter().map(text_of).collect::<Option<Vec<_>>>().ok_or_else(wrong);
        match name.as_str() {
            "format" => {
                let texts = texts()?;
                let (template, rest) = texts.split_first().ok_or_else(wrong)?;
                let formatted = format(template, rest).ok_or_else(wrong)?;
                if formatted.len() > MAX_TEXT_BYTES { Err(too_long()) } else { Ok(formatted.into()) }
            }
            "concat" => {
                let joined = texts()?.concat();
                if joined.len() > MAX_TEXT_BYTES { Err(too_long()) } else { Ok(joined.into()) }
            }
            "split" => match texts()?.as_slice() {
                [text, separator] => Ok(text.split(separator).collect()),
                _ => Err(wrong()),
            },
            "last" => match values()?.as_slice() {
                [Value::Array(items)] => items.last().cloned().ok_or_else(wrong),
                _ => Err(wrong()),
            },
            "tolower" => match texts()?.as_slice() {
                [text] => Ok(text.to_lowercase().into()),
                _ => Err(wrong()),
            },
            "tenant" => Ok(json!({"tenantId": TENANT})),
            "reference" => {
                let texts = texts()?;
                self.reference(texts.first().ok_or_else(wrong)?)
            }
            _ => Err(EvaluateError::UnknownFunction(function.to_owned())),
        }
    }

    /// What the platform says of a resource that is there.
    fn reference(&self, id: &str) -> Result<Value, EvaluateError> {
        let name = id.rsplit('/').next().unwrap_or_default();
        let lower = id.to_ascii_lowercase();
        let kind = lower.rsplit_once("/providers/").map_or("", |(_, rest)| rest);
        let unknown = || EvaluateError::UnknownMember { resource: id.to_owned(), member: "the state".to_owned() };
        let properties = match kind.split('/').collect::<Vec<_>>().as_slice() {
            ["microsoft.managedidentity", "userassignedidentities", _] => {
                let identity = self.identities.get(&lower).ok_or_else(unknown)?;
                json!({"clientId": identity.client_id, "principalId": identity.principal_id, "tenantId": TENANT})
            }
            ["microsoft.insights", "components", _] => {
                // Nobody is at this address: what the host sends there is not simulated.
                let key = "00000000-0000-0000-0000-000000000000";
                let string = format!("InstrumentationKey={key};IngestionEndpoint=https://insights.invalid/");
                json!({"InstrumentationKey": key, "ConnectionString": string})
            }
            ["microsoft.storage", "storageaccounts", _] => {
                let place = |kind: &str| format!("https://{name}.{kind}.core.windows.net/");
                json!({"primaryEndpoints": {"blob": place("blob"), "queue": place("queue"), "table": place("table")}})
            }
            ["microsoft.keyvault", "vaults", _] => json!({"vaultUri": format!("https://{name}.vault.azure.net/")}),
            ["microsoft.keyvault", "vaults", vault, "secrets", _] => {
                let uri = format!("https://{vault}.vault.azure.net/secrets/{name}");
                json!({"secretUri": uri, "secretUriWithVersion": format!("{uri}/{SECRET_VERSION}")})
            }
            ["microsoft.devices", "iothubs", _] => json!({"hostName": format!("{name}.azure-devices.net")}),
            ["microsoft.eventhub", "namespaces", _] => {
                json!({"serviceBusEndpoint": format!("https://{name}.servicebus.windows.net:443/")})
            }
            ["microsoft.web", "sites", _] => json!({"defaultHostName": format!("{name}.azurewebsites.net")}),
            _ => return Err(unknown()),
        };
        Ok(properties)
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// .NET's composite formatting, without widths and formats: `{0}`, and `{{`, `}}` for brackets. It goes on only until the result is
/// longer than what is taken.
fn format(template: &str, values: &[String]) -> Option<String> {
    let mut formatted = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}'])
        && formatted.len() <= MAX_TEXT_BYTES
    {
        formatted.push_str(&rest[..at]);
        let bracket = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(bracket) {
            formatted.push_str(bracket);
            rest = after;
            continue;
        }
        let (index, after) = rest.split_once('}').filter(|_| bracket == "{")?;
        formatted.push_str(values.get(index.parse::<usize>().ok()?)?);
        rest = after;
    }
    formatted.push_str(rest);
    Some(formatted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app";

    fn evaluator() -> Evaluator {
        Evaluator::new([APP.to_owned()].into_iter())
    }

    #[test]
    fn expressions_of_a_template_get_the_values_of_the_platform() {
        let evaluator = evaluator();
        let ManagedIdentity { client_id, .. } = &evaluator.identities()[0];
        let vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v";
        for (value, expected) in [
            ("plain".to_owned(), "plain".to_owned()),
            (format!("[reference('{APP}', '2024-11-30').clientId]"), client_id.clone()),
            (
                format!("[format('ClientId={{0}};AAD', reference('{}').clientId)]", APP.to_uppercase()),
                format!("ClientId={client_id};AAD"),
            ),
            (
                format!("[reference('{vault}/secrets/k', '2025-05-01').secretUri]"),
                "https://v.vault.azure.net/secrets/k".to_owned(),
            ),
            ("[concat('a', 1, toLower('B'))]".to_owned(), "a1b".to_owned()),
            ("[format('{{{0}}}', 'x')]".to_owned(), "{x}".to_owned()),
            ("[tenant().tenantId]".to_owned(), TENANT.to_owned()),
            (
                format!("[last(split(reference('{vault}/secrets/k').secretUriWithVersion, '/'))]"),
                SECRET_VERSION.to_owned(),
            ),
        ] {
            assert_eq!(evaluator.text(&value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn what_a_function_makes_is_bounded() {
        let five_thousand = format!("format('{}', 'x')", "{0}".repeat(5000));
        assert!(evaluator().text(&format!("[{five_thousand}]")).is_ok_and(|text| text.len() == 5000));
        let squared = format!("[format('{}', {five_thousand})]", "{0}".repeat(2000));
        assert_eq!(evaluator().text(&squared), Err(EvaluateError::TooLong("format".into())));
        let ids = vec![format!("format('{}', '{}')", "{0}".repeat(100), "x".repeat(1000)); 2].join(",");
        assert_eq!(evaluator().text(&format!("[concat({ids})]")), Err(EvaluateError::TooLong("concat".into())));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (value, told) in [
            ("[uniqueString('x')]", "the function uniqueString() is not known"),
            ("[reference('/x/providers/Microsoft.Web/sites/a').kind]", "kind of /x/providers/Microsoft.Web/sites/a"),
            ("[reference('/x/providers/Microsoft.Cache/redis/a').x]", "of /x/providers/Microsoft.Cache/redis/a"),
            ("[parameters('key')]", "parameters() gives a secret"),
            ("[listKeys('/x', '1').primaryKey]", "listKeys() gives a secret"),
            ("[format('{1}', 'x')]", "format() cannot take"),
            ("[format('{x', 'x')]", "format() cannot take"),
            ("[tenant()]", "text() cannot take"),
            (
                "[reference('/x/providers/Microsoft.Web/sites/a').id]",
                "id of /x/providers/Microsoft.Web/sites/a is not known",
            ),
            (
                "[reference('/x/providers/Microsoft.Storage/storageAccounts/a').primaryEndpoints.x]",
                "x of /x/providers/Microsoft.Storage",
            ),
            ("[tenant().id]", "id of tenant() is not known"),
            ("[toLower('a', 'b')]", "toLower() cannot take"),
            ("[f(]", "is no expression"),
        ] {
            let error = evaluator().text(value).expect_err(value).to_string();
            assert!(error.contains(told), "{value}: {error}");
        }
    }
}
