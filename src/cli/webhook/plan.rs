//! The webhook as it is and as it shall be → what to write.
//!
//! Ours are the address, the format, the headers that the bridge asks for, and the eleven message types with empty paths. What
//! else a webhook has stays: other headers, field mask, downlink API key, template, pause.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use url::{Position, Url};

use crate::message_type::MessageType;
use crate::stack::{Webhook, WebhookUpdate};

/// Where the Functions host looks for the function key, beside the URL.
const FUNCTION_KEY_HEADER: &str = "x-functions-key";
/// Where the bridge looks for `WEBHOOK_SECRET`.
pub(super) const SECRET_HEADER: &str = "X-Webhook-Secret";
/// The one format that the bridge reads.
const FORMAT: &str = "json";

/// The webhook as it shall be.
pub(super) struct Wanted {
    base_url: String,
    headers: Vec<(&'static str, SecretString)>,
    /// The types that the server knows.
    types: &'static [MessageType],
}

impl Wanted {
    pub(super) fn new(
        base_url: String,
        function_key: SecretString,
        webhook_secret: Option<SecretString>,
        types: &'static [MessageType],
    ) -> Self {
        let secret = webhook_secret.map(|secret| (SECRET_HEADER, secret));
        Self { base_url, headers: [(FUNCTION_KEY_HEADER, function_key)].into_iter().chain(secret).collect(), types }
    }
}

/// What is to be done. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Create { base_url: String, headers: Vec<&'static str>, types: usize },
    Update(Vec<Change>),
    Unchanged,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    BaseUrl { from: String, to: String },
    Format { from: String },
    Header { name: &'static str, is_new: bool },
    MessageType { kind: MessageType },
    Path { kind: MessageType },
}

/// What has to change for the webhook to be as it shall be.
pub(super) fn plan(current: Option<&Webhook>, wanted: &Wanted) -> Plan {
    let Some(current) = current else {
        let headers = wanted.headers.iter().map(|(name, _)| *name).collect();
        return Plan::Create { base_url: wanted.base_url.clone(), headers, types: wanted.types.len() };
    };
    let mut changes = Vec::new();
    if current.base_url != wanted.base_url {
        changes.push(Change::BaseUrl { from: shown(&current.base_url), to: wanted.base_url.clone() });
    }
    if current.format != FORMAT {
        changes.push(Change::Format { from: current.format.clone() });
    }
    for (name, value) in &wanted.headers {
        let mut found = values(&current.headers, name).peekable();
        let is_new = found.peek().is_none();
        if is_new || found.any(|found| !same(found, value)) {
            changes.push(Change::Header { name, is_new });
        }
    }
    for &kind in wanted.types {
        match current.paths.get(&kind) {
            None => changes.push(Change::MessageType { kind }),
            Some(path) if !path.is_empty() => changes.push(Change::Path { kind }),
            Some(_) => {}
        }
    }
    if changes.is_empty() { Plan::Unchanged } else { Plan::Update(changes) }
}

/// What to write for it: the fields that differ, and no other.
pub(super) fn update(current: Option<&Webhook>, wanted: &Wanted) -> WebhookUpdate {
    let nothing = Webhook::default();
    let current = current.unwrap_or(&nothing);
    let Plan::Update(changes) = plan(Some(current), wanted) else { return WebhookUpdate::default() };
    let mut update = WebhookUpdate::default();
    for change in changes {
        match change {
            Change::BaseUrl { .. } => update.base_url = Some(wanted.base_url.clone()),
            Change::Format { .. } => update.format = Some(FORMAT.to_owned()),
            Change::Header { .. } => update.headers = Some(headers(&current.headers, wanted)),
            Change::MessageType { kind } | Change::Path { kind } => {
                update.paths.insert(kind, String::new());
            }
        }
    }
    update
}

/// The headers are one field of a webhook: ours in the place of those with the same name, and all others as they are.
fn headers(current: &BTreeMap<String, SecretString>, wanted: &Wanted) -> BTreeMap<String, SecretString> {
    let is_ours = |name: &str| wanted.headers.iter().any(|(ours, _)| ours.eq_ignore_ascii_case(name));
    let others = current.iter().filter(|(name, _)| !is_ours(name)).map(|(name, value)| (name.clone(), value.clone()));
    others.chain(wanted.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()))).collect()
}

/// Values under this name; those of HTTP know no case.
pub(super) fn values<'a>(
    headers: &'a BTreeMap<String, SecretString>,
    name: &str,
) -> impl Iterator<Item = &'a SecretString> {
    headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret().as_bytes().ct_eq(other.expose_secret().as_bytes()).into()
}

/// Where someone else's address points. All behind the host may be a key, and so may what stands before it.
fn shown(url: &str) -> String {
    let (bare, template) = url.split_once('{').map_or((url, ""), |(bare, template)| (bare, template));
    match Url::parse(bare) {
        _ if url.is_empty() => String::new(),
        Ok(parsed)
            if parsed.has_host() && (template.is_empty() || template.starts_with('/') || parsed.path() != "/") =>
        {
            let host = &parsed[Position::BeforeHost..Position::AfterPort];
            let more = parsed[Position::BeforePath..].trim_start_matches('/');
            let more = if more.is_empty() && template.is_empty() { "" } else { "/…" };
            format!("{}://{host}{more}", parsed.scheme())
        }
        _ => "(not shown)".to_owned(),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { base_url, headers, types } => {
                writeln!(f, "  create")?;
                writeln!(f, "    base_url: {base_url}")?;
                writeln!(f, "    format: {FORMAT}")?;
                writeln!(f, "    headers: {} (values are not shown)", headers.join(", "))?;
                write!(f, "    message types: {types}, with empty paths")
            }
            Self::Update(changes) => {
                write!(f, "  update")?;
                changes.iter().try_for_each(|change| write!(f, "\n    {change}"))
            }
            Self::Unchanged => write!(f, "  unchanged"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BaseUrl { from, to } if from.is_empty() => write!(f, "base_url: {to}"),
            Self::BaseUrl { from, to } => write!(f, "base_url: {to} (was {from})"),
            Self::Format { from } if from.is_empty() => write!(f, "format: {FORMAT}"),
            Self::Format { from } => write!(f, "format: {FORMAT} (was {from})"),
            Self::Header { name, is_new: true } => write!(f, "header {name}: added"),
            Self::Header { name, is_new: false } => write!(f, "header {name}: another value"),
            Self::MessageType { kind } => write!(f, "message type {}: enabled", kind.key()),
            Self::Path { kind } => write!(f, "path of {}: emptied", kind.key()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://app.azurewebsites.net/api/uplink{/devID}";

    fn wanted() -> Wanted {
        Wanted::new(URL.to_owned(), SecretString::from("f-key"), Some(SecretString::from("shared")), &MessageType::ALL)
    }

    /// The webhook as it shall be, with a header of someone else.
    fn installed() -> Webhook {
        let headers = [("Authorization", "Basic s3cret"), ("x-functions-key", "f-key"), ("X-Webhook-Secret", "shared")];
        Webhook {
            base_url: URL.to_owned(),
            format: "json".to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), SecretString::from(value))).into(),
            paths: MessageType::ALL.map(|kind| (kind, String::new())).into(),
            ..Webhook::default()
        }
    }

    fn changes(edit: impl FnOnce(&mut Webhook)) -> (Vec<String>, WebhookUpdate) {
        let mut webhook = installed();
        edit(&mut webhook);
        let told = match plan(Some(&webhook), &wanted()) {
            Plan::Update(changes) => changes.iter().map(ToString::to_string).collect(),
            Plan::Unchanged => Vec::new(),
            create @ Plan::Create { .. } => panic!("{create}"),
        };
        (told, update(Some(&webhook), &wanted()))
    }

    #[test]
    fn what_is_as_it_shall_be_is_left_alone() {
        let (told, update) = changes(|webhook| {
            webhook.paused = true;
            webhook.field_mask = vec!["received_at".to_owned()];
        });
        assert!(told.is_empty() && update.headers.is_none() && update.paths.is_empty(), "{told:?}");
        assert!(update.base_url.is_none() && update.format.is_none());
    }

    #[test]
    fn each_difference_is_told_and_only_its_field_is_written() {
        let (told, update) =
            changes(|webhook| webhook.base_url = "https://old.example.net/hook?code=s3cret".to_owned());
        assert_eq!(told, [format!("base_url: {URL} (was https://old.example.net/…)")]);
        assert!(update.base_url.as_deref() == Some(URL) && update.headers.is_none() && update.paths.is_empty());
        let (told, update) = changes(|webhook| webhook.format = "protobuf".to_owned());
        assert_eq!(told, ["format: json (was protobuf)"]);
        assert_eq!(update.format.as_deref(), Some("json"));
        let (told, update) = changes(|webhook| {
            webhook.paths.remove(&MessageType::ServiceData);
            webhook.paths.insert(MessageType::JoinAccept, "/join".to_owned());
        });
        assert_eq!(told, ["path of join_accept: emptied", "message type service_data: enabled"]);
        assert_eq!(update.paths.into_keys().collect::<Vec<_>>(), [MessageType::JoinAccept, MessageType::ServiceData]);
    }

    #[test]
    fn a_header_of_ours_is_known_in_any_case_and_those_of_others_stay() {
        let rename = |webhook: &mut Webhook, value: &str| {
            webhook.headers.remove("x-functions-key");
            webhook.headers.insert("X-Functions-Key".to_owned(), SecretString::from(value));
        };
        assert_eq!(changes(|webhook| rename(webhook, "f-key")).0, Vec::<String>::new());
        let (told, update) = changes(|webhook| rename(webhook, "old"));
        assert_eq!(told, ["header x-functions-key: another value"]);
        let headers = update.headers.expect("written");
        let names: Vec<_> = headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["Authorization", "X-Webhook-Secret", "x-functions-key"], "no header twice");
        assert_eq!(headers["Authorization"].expose_secret(), "Basic s3cret");
        assert_eq!(headers["x-functions-key"].expose_secret(), "f-key");
        let (told, _) = changes(|webhook| drop(webhook.headers.remove("X-Webhook-Secret")));
        assert_eq!(told, ["header X-Webhook-Secret: added"]);
    }

    #[test]
    fn a_new_webhook_is_written_whole() {
        let told = plan(None, &wanted()).to_string();
        assert!(told.contains("create") && told.contains(URL) && told.contains("message types: 11"), "{told}");
        assert!(!told.contains("f-key") && !told.contains("shared"), "{told}");
        let update = update(None, &wanted());
        assert_eq!((update.base_url.as_deref(), update.format.as_deref()), (Some(URL), Some("json")));
        assert_eq!((update.headers.map(|headers| headers.len()), update.paths.len()), (Some(2), 11));
    }

    #[test]
    fn what_may_be_a_key_in_another_address_is_not_shown() {
        for (url, shown) in [
            ("", ""),
            ("https://h.example", "https://h.example"),
            ("https://h.example/", "https://h.example"),
            ("https://h.example/hook/s3cret", "https://h.example/…"),
            ("https://h.example{/devID}", "https://h.example/…"),
            ("https://h.example:8443/x?code=s3cret", "https://h.example:8443/…"),
            ("https://h.example?code=s3cret", "https://h.example/…"),
            ("https://h.example#s3cret", "https://h.example/…"),
            ("https://u:s3cret@h.example/x", "https://h.example/…"),
            ("https://u:s3cr/et@h.example/x", "(not shown)"),
            ("https://s3cret{appID}.example/x", "(not shown)"),
            ("mailto:s3cret", "(not shown)"),
            ("?code=s3cret", "(not shown)"),
        ] {
            assert_eq!(super::shown(url), shown, "{url}");
        }
    }
}
