//! The function app on disk: `host.json` and one `function.json` per folder, checked before anything starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::function::{Function, read_function};
use super::time_span;

/// Name prefix of the app settings that replace a value of `host.json`.
/// Source: `Azure/azure-functions-host` `HttpWorkerOptionsSetup.cs`.
const OVERRIDE_PREFIX: &str = "AzureFunctionsJobHost__";
/// Without a setting: 30 minutes on every plan but the old consumption plan.
const DEFAULT_FUNCTION_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Default of the Event Hubs extension 6.
const DEFAULT_BATCH: usize = 100;
/// Default of the host's source (its documentation says 60 s).
const DEFAULT_INITIALIZATION: Duration = Duration::from_secs(30);

/// Why a function app cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file of the app cannot be read.
    #[error("cannot read {path} of the function app: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the app is no JSON of the expected shape.
    #[error("{path} of the function app is not valid: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A value that the real host refuses, or that is not simulated.
    #[error("{place}: {problem}")]
    Invalid {
        /// `host.json` or the function's name.
        place: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// The handler's executable.
    #[error("cannot run the handler {path}: {problem}; set customHandler.description.defaultExecutablePath")]
    Executable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it cannot run.
        problem: String,
    },
    /// The address to listen at.
    #[error("cannot listen at {addr}: {source}")]
    Listen {
        /// The address.
        addr: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StartError {
    pub(super) fn invalid(place: &str, problem: impl Into<String>) -> Self {
        Self::Invalid { place: place.to_owned(), problem: problem.into() }
    }
}

/// Everything that the files and settings of an app say.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) root: PathBuf,
    /// As `host.json` has it, settings applied; relative to the root or absolute.
    pub(super) executable: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) working_directory: PathBuf,
    pub(super) initialization_timeout: Duration,
    /// `None`: no limit (`-1`).
    pub(super) function_timeout: Option<Duration>,
    pub(super) max_batch: usize,
    pub(super) from_end: bool,
    pub(super) route_prefix: String,
    pub(super) functions: Vec<Function>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HostJson {
    version: String,
    function_timeout: Option<Value>,
    custom_handler: Option<CustomHandler>,
    extensions: Extensions,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomHandler {
    description: Description,
    #[serde(default)]
    enable_proxying_http_request: bool,
    initialization_timeout: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Description {
    default_executable_path: String,
    arguments: Vec<String>,
    working_directory: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Extensions {
    http: HttpExtension,
    event_hubs: EventHubsExtension,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HttpExtension {
    route_prefix: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EventHubsExtension {
    max_event_batch_size: Option<usize>,
    min_event_batch_size: Option<usize>,
    batch_checkpoint_frequency: Option<usize>,
    initial_offset_options: InitialOffset,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InitialOffset {
    r#type: String,
}

impl App {
    /// Reads the folder.
    pub(super) fn read(root: &Path, settings: &BTreeMap<String, String>) -> Result<Self, StartError> {
        let root = root.canonicalize().map_err(|source| StartError::Read { path: root.to_owned(), source })?;
        let host = read_host_json(&root.join("host.json"), settings)?;
        let invalid = |problem: &str| StartError::invalid("host.json", problem);
        if host.version != "2.0" {
            return Err(invalid("version must be \"2.0\""));
        }
        let Some(handler) = host.custom_handler else {
            return Err(invalid("customHandler.description is missing: only custom handlers are simulated"));
        };
        let hubs = host.extensions.event_hubs;
        if hubs.min_event_batch_size.unwrap_or(1) != 1 || hubs.batch_checkpoint_frequency.unwrap_or(1) != 1 {
            return Err(invalid("minEventBatchSize and batchCheckpointFrequency other than 1 are not simulated"));
        }
        let max_batch = hubs.max_event_batch_size.unwrap_or(DEFAULT_BATCH);
        if max_batch == 0 {
            return Err(invalid("extensions.eventHubs.maxEventBatchSize must be at least 1"));
        }
        let initialization_timeout = match handler.initialization_timeout {
            Some(text) => time_span::parse(&text)
                .ok_or_else(|| invalid("customHandler.initializationTimeout must be a time span such as 00:00:30"))?,
            None => DEFAULT_INITIALIZATION,
        };
        let from_end = match hubs.initial_offset_options.r#type.to_ascii_lowercase().as_str() {
            "" | "fromstart" => false,
            "fromend" => true,
            _ => return Err(invalid("initialOffsetOptions.type other than fromStart and fromEnd is not simulated")),
        };
        let route_prefix = host.extensions.http.route_prefix.unwrap_or_else(|| "api".to_owned());
        let functions = read_functions(&root, &route_prefix, settings)?;
        if functions.iter().any(Function::is_http) && !handler.enable_proxying_http_request {
            return Err(invalid("customHandler.enableProxyingHttpRequest must be true: only proxying is simulated"));
        }
        let description = handler.description;
        let argument_line = description.arguments.iter().map(|text| expand(text, settings)).collect::<Vec<_>>();
        Ok(Self {
            executable: PathBuf::from(expand(&description.default_executable_path, settings)),
            arguments: split_arguments(&argument_line.join(" ")),
            working_directory: root.join(description.working_directory),
            initialization_timeout,
            function_timeout: function_timeout(host.function_timeout)?,
            max_batch,
            from_end,
            route_prefix,
            functions,
            root,
        })
    }
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, StartError> {
    let text = std::fs::read(path).map_err(|source| StartError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| StartError::Json { path: path.to_owned(), source })
}

fn read_host_json(path: &Path, settings: &BTreeMap<String, String>) -> Result<HostJson, StartError> {
    let mut host: Value = read_json(path)?;
    for (name, value) in settings {
        let Some((prefix, place)) = name.split_at_checked(OVERRIDE_PREFIX.len()) else { continue };
        if prefix.eq_ignore_ascii_case(OVERRIDE_PREFIX) {
            replace(&mut host, &place.split("__").collect::<Vec<_>>(), value);
        }
    }
    serde_json::from_value(host).map_err(|source| StartError::Json { path: path.to_owned(), source })
}

/// Sets a member by its path, whatever its case. Text that is JSON of another kind than text counts as that kind.
fn replace(host: &mut Value, place: &[&str], text: &str) {
    let [first, rest @ ..] = place else {
        *host = match serde_json::from_str(text) {
            Ok(value @ (Value::Array(_) | Value::Object(_) | Value::Bool(_) | Value::Number(_))) => value,
            _ => Value::String(text.to_owned()),
        };
        return;
    };
    if !host.is_object() {
        *host = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(members) = host {
        let name = members.keys().find(|name| name.eq_ignore_ascii_case(first)).cloned();
        replace(members.entry(name.unwrap_or_else(|| (*first).to_owned())).or_insert(Value::Null), rest, text);
    }
}

fn function_timeout(value: Option<Value>) -> Result<Option<Duration>, StartError> {
    let text = match value {
        None => return Ok(Some(DEFAULT_FUNCTION_TIMEOUT)),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    match time_span::parse(&text) {
        _ if text == "-1" => Ok(None),
        Some(span) if span >= Duration::from_secs(1) => Ok(Some(span)),
        _ => Err(StartError::invalid("host.json", "functionTimeout must be -1 or a time span of at least 00:00:01")),
    }
}

fn read_functions(root: &Path, prefix: &str, settings: &BTreeMap<String, String>) -> Result<Vec<Function>, StartError> {
    let unreadable = |source| StartError::Read { path: root.to_owned(), source };
    let mut functions = Vec::new();
    for entry in std::fs::read_dir(root).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let file = path.join("function.json");
        if let (true, Some(name)) = (file.is_file(), path.file_name().and_then(|name| name.to_str())) {
            functions.push(read_function(name, read_json(&file)?, prefix, settings)?);
        }
    }
    functions.sort_by(|a, b| a.name.cmp(&b.name));
    if functions.is_empty() {
        // The real host runs on without ever starting the handler; nobody means that.
        return Err(StartError::invalid("the function app", "it has no folder with a function.json"));
    }
    Ok(functions)
}

/// Replaces `%NAME%` by the setting of that name, an unset one by nothing.
pub(super) fn expand(text: &str, settings: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut parts = text.split('%');
    expanded.push_str(parts.next().unwrap_or_default());
    while let Some(name) = parts.next() {
        match parts.next() {
            Some(after) => {
                expanded.push_str(settings.get(name).map_or("", String::as_str));
                expanded.push_str(after);
            }
            None => {
                expanded.push('%');
                expanded.push_str(name);
            }
        }
    }
    expanded
}

/// .NET joins the arguments with blanks and splits them again, honouring quotes: `"two words"` in one array item
/// without quotes of its own arrives as two arguments.
fn split_arguments(line: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                current.get_or_insert_default();
            }
            '\\' if characters.peek() == Some(&'"') => current.get_or_insert_default().extend(characters.next()),
            ' ' | '\t' if !quoted => arguments.extend(current.take()),
            _ => current.get_or_insert_default().push(character),
        }
    }
    arguments.extend(current);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_split_as_recorded() {
        let line = ["--one", "two words", "\"quoted arg\""].join(" ");
        assert_eq!(split_arguments(&line), ["--one", "two", "words", "quoted arg"]);
        assert_eq!(split_arguments(r#"a \"b "" "#), ["a", "\"b", ""]);
        assert!(split_arguments("").is_empty());
    }

    #[test]
    fn a_setting_replaces_a_value_of_host_json() {
        let mut host = serde_json::json!({"functionTimeout": "00:05:00", "customHandler": {"description": {}}});
        replace(&mut host, &["FunctionTimeout"], "00:00:01");
        replace(&mut host, &["customhandler", "description", "arguments"], "[\"serve\"]");
        replace(&mut host, &["extensions", "eventHubs", "maxEventBatchSize"], "7");
        let expected = serde_json::json!({
            "functionTimeout": "00:00:01",
            "customHandler": {"description": {"arguments": ["serve"]}},
            "extensions": {"eventHubs": {"maxEventBatchSize": 7}}
        });
        assert_eq!(host, expected);
    }

    #[test]
    fn percent_names_are_settings() {
        let settings = BTreeMap::from([("HUB".to_owned(), "telemetry".to_owned())]);
        for (text, expanded) in [("%HUB%", "telemetry"), ("a%HUB%b", "atelemetryb"), ("%NO%x", "x"), ("50%", "50%")] {
            assert_eq!(expand(text, &settings), expanded);
        }
    }
}
