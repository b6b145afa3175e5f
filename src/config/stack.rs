//! Settings of The Things Stack.

use secrecy::SecretString;
use url::Url;

use super::Reader;
use super::is_loopback;
use super::reader::shown;
use crate::ids::ApplicationId;

/// Where events from IoT Hub go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsTarget {
    /// Calls to the API, on any edition.
    Api,
    /// Posted as they are to the `azureiothub` package of Cloud and Enterprise.
    Package,
}

/// How The Things Stack is reached and what is asked of it.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Base of the regional servers, ending in `/api/v3/`.
    pub base_url: Url,
    /// Base of the Identity Server, ending in `/api/v3/`.
    pub identity_url: Url,
    /// The application that this bridge serves.
    pub application_id: ApplicationId,
    /// API key of that application.
    pub api_key: SecretString,
    /// Where events go.
    pub events_target: EventsTarget,
    /// Whether deletions are carried over.
    pub sync_delete: bool,
    /// Whether root keys stay in the tags.
    pub keep_root_keys: bool,
}

impl StackConfig {
    pub(super) fn read(read: &mut Reader) -> Option<Self> {
        let base_url = base_url(read, "STACK_BASE_URL", true);
        let identity_url = if read.is_given("STACK_IDENTITY_URL") { base_url_opt(read) } else { base_url.clone() };
        let application_id = application_id(read);
        let api_key = api_key(read);
        let events_target = read.choice(
            "STACK_EVENTS_TARGET",
            &[("api", EventsTarget::Api), ("package", EventsTarget::Package)],
            EventsTarget::Api,
        );
        let sync_delete = read.flag("SYNC_DELETE", true);
        let keep_root_keys = read.flag("KEEP_ROOT_KEYS", false);
        Some(Self {
            base_url: base_url?,
            identity_url: identity_url?,
            application_id: application_id?,
            api_key: api_key?,
            events_target: events_target?,
            sync_delete: sync_delete?,
            keep_root_keys: keep_root_keys?,
        })
    }
}

fn base_url_opt(read: &mut Reader) -> Option<Url> {
    base_url(read, "STACK_IDENTITY_URL", false)
}

/// Accepts a host name, or an address with or without `/api/v3`.
fn base_url(read: &mut Reader, setting: &str, required: bool) -> Option<Url> {
    const REMEDY: &str = "give the cluster address, such as `https://acme.eu1.cloud.thethings.industries`";
    let value = if required { read.required(setting, REMEDY)? } else { read.optional(setting)? };
    let Some(mut url) = parse_address(&value) else {
        // What cannot be parsed is not repeated: it may hold a credential.
        read.problem(setting, format_args!("is no address; {REMEDY}"));
        return None;
    };
    if !url.username().is_empty() || url.password().is_some() {
        read.problem(setting, "holds a user name or a password; leave them out, the API key is the credential");
        return None;
    }
    if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)) {
        read.problem(setting, format_args!("{}:// would send the API key unprotected; use https", url.scheme()));
        return None;
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if path.ends_with("/api/v3") { path } else { format!("{path}/api/v3") };
    url.set_path(&format!("{path}/"));
    Some(url)
}

/// A URL parser forgives a lot: without the two conditions `/api/v3` is a host `api`, and `https:/acme` a host `https`.
fn parse_address(value: &str) -> Option<Url> {
    let text = if value.contains("://") { value.to_owned() } else { format!("https://{value}") };
    let url = Url::parse(&text).ok()?;
    let host = url.host_str().filter(|host| !matches!(*host, "" | "http" | "https"));
    (host.is_some() && !text.contains(":///")).then_some(url)
}

fn application_id(read: &mut Reader) -> Option<ApplicationId> {
    let value = read.required("STACK_APPLICATION_ID", "give the id of the application as the Console shows it")?;
    let id = ApplicationId::parse(&value);
    if id.is_err() {
        const WHAT: &str = "is no application id: 3 to 36 characters of a-z, 0-9 and single inner dashes";
        read.problem("STACK_APPLICATION_ID", format_args!("{} {WHAT}", shown(&value)));
    }
    id.ok()
}

/// Three parts divided by dots; lengths are not checked (`TheThingsNetwork/lorawan-stack pkg/auth/auth.go`).
fn api_key(read: &mut Reader) -> Option<SecretString> {
    let value = read.required("STACK_API_KEY", "create an API key in the application and give it here")?;
    let parts: Vec<_> = value.split('.').collect();
    if parts.len() != 3 || parts.contains(&"") || value.contains(char::is_whitespace) || !value.is_ascii() {
        read.problem("STACK_API_KEY", "is no API key: one has three parts divided by dots and begins with `NNSXS`");
        return None;
    }
    Some(value.into())
}
