//! One `function.json`: a trigger, and for Event Hubs a retry policy.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::app::{StartError, expand};
use super::envelope::Origin;
use super::retry::RetryPolicy;
use super::route::Route;
use super::time_span;

/// A function of the app.
#[derive(Clone, Debug)]
pub(super) struct Function {
    /// The name of its folder.
    pub(super) name: String,
    pub(super) trigger: Trigger,
}

impl Function {
    pub(super) fn is_http(&self) -> bool {
        matches!(self.trigger, Trigger::Http(_))
    }
}

#[derive(Clone, Debug)]
pub(super) enum Trigger {
    Http(HttpTrigger),
    EventHub(EventHubTrigger),
}

#[derive(Clone, Debug)]
pub(super) struct HttpTrigger {
    pub(super) route: Route,
    /// Empty: all methods.
    pub(super) methods: Vec<String>,
    pub(super) needs_key: bool,
}

#[derive(Clone, Debug)]
pub(super) struct EventHubTrigger {
    /// The key of `Data`.
    pub(super) binding: String,
    pub(super) event_hub: String,
    pub(super) consumer_group: String,
    /// The setting, or the group of settings, that says how the namespace is reached.
    pub(super) connection: String,
    pub(super) shape: Shape,
    pub(super) retry: RetryPolicy,
}

impl EventHubTrigger {
    /// What every envelope of a partition says about it.
    pub(super) fn origin(&self, function: &str, namespace: &str, partition: usize) -> Origin {
        Origin {
            function: function.to_owned(),
            binding: self.binding.clone(),
            shape: self.shape,
            fully_qualified_namespace: namespace.to_owned(),
            event_hub: self.event_hub.clone(),
            consumer_group: self.consumer_group.clone(),
            partition_id: partition.to_string(),
        }
    }
}

/// How events become `Data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    ManyBinary,
    ManyText,
    /// Without `dataType`: each body is JSON.
    ManyJson,
    OneBinary,
    /// The default: without `dataType`, or with `string`.
    OneText,
}

impl Shape {
    /// Whether each event is an invocation.
    pub(super) fn is_one(self) -> bool {
        matches!(self, Self::OneBinary | Self::OneText)
    }
}

#[derive(Deserialize)]
pub(super) struct FunctionJson {
    bindings: Vec<Binding>,
    retry: Option<Retry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    r#type: String,
    #[serde(default)]
    name: String,
    route: Option<String>,
    methods: Option<Vec<String>>,
    auth_level: Option<String>,
    event_hub_name: Option<String>,
    connection: Option<String>,
    consumer_group: Option<String>,
    cardinality: Option<String>,
    data_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Retry {
    strategy: String,
    max_retry_count: i32,
    delay_interval: Option<String>,
    minimum_interval: Option<String>,
    maximum_interval: Option<String>,
}

/// Checks one function.
pub(super) fn read_function(
    name: &str,
    file: FunctionJson,
    prefix: &str,
    settings: &BTreeMap<String, String>,
) -> Result<Function, StartError> {
    let invalid = |problem: String| StartError::invalid(name, problem);
    let mut triggers = file.bindings.iter().filter(|binding| binding.r#type.to_ascii_lowercase().ends_with("trigger"));
    let (Some(binding), None) = (triggers.next(), triggers.next()) else {
        return Err(invalid("exactly one binding must be a trigger".to_owned()));
    };
    if binding.name.is_empty() {
        return Err(invalid("the trigger has no name".to_owned()));
    }
    let trigger = match binding.r#type.to_ascii_lowercase().as_str() {
        "httptrigger" => {
            let others: Vec<_> = file.bindings.iter().filter(|other| !std::ptr::eq(*other, binding)).collect();
            if others.len() != 1 || !others[0].r#type.eq_ignore_ascii_case("http") {
                let why = "an HTTP function is proxied only with one http output and no other binding; \
                           the envelope that it would get otherwise is not simulated";
                return Err(invalid(why.to_owned()));
            }
            Trigger::Http(http_trigger(name, binding, prefix)?)
        }
        "eventhubtrigger" => {
            let retry = file.retry.map_or(Ok(RetryPolicy::None), |retry| retry_policy(&retry)).map_err(invalid)?;
            Trigger::EventHub(event_hub_trigger(binding, retry, settings).map_err(invalid)?)
        }
        other => return Err(invalid(format!("trigger type {other} is not simulated"))),
    };
    Ok(Function { name: name.to_owned(), trigger })
}

fn http_trigger(function: &str, binding: &Binding, prefix: &str) -> Result<HttpTrigger, StartError> {
    let level = binding.auth_level.as_deref().unwrap_or("function").to_ascii_lowercase();
    if !["anonymous", "function", "admin"].contains(&level.as_str()) {
        return Err(StartError::invalid(function, format!("authLevel {level} is not known")));
    }
    let template = binding.route.as_deref().unwrap_or(function);
    let route = Route::parse(prefix, template)
        .map_err(|problem| StartError::invalid(function, format!("route '{template}': {problem}")))?;
    let methods = binding.methods.iter().flatten().map(|method| method.to_ascii_uppercase()).collect();
    Ok(HttpTrigger { route, methods, needs_key: level != "anonymous" })
}

fn event_hub_trigger(
    binding: &Binding,
    retry: RetryPolicy,
    settings: &BTreeMap<String, String>,
) -> Result<EventHubTrigger, String> {
    let event_hub = expand(binding.event_hub_name.as_deref().unwrap_or_default(), settings);
    if event_hub.is_empty() {
        return Err("eventHubName is missing, or names a setting that does not exist".to_owned());
    }
    let connection = binding.connection.as_deref().unwrap_or_default();
    let group = format!("{connection}__");
    let given = |name: &String| name == connection || name.starts_with(&group);
    if connection.is_empty() || !settings.keys().any(given) {
        return Err(format!("connection '{connection}' names neither a setting nor a group such as {group}credential"));
    }
    let lower = |text: &Option<String>| text.as_deref().unwrap_or_default().to_ascii_lowercase();
    let shape = match (lower(&binding.cardinality).as_str(), lower(&binding.data_type).as_str()) {
        ("many", "binary") => Shape::ManyBinary,
        ("many", "string") => Shape::ManyText,
        ("many", "") => Shape::ManyJson,
        ("one" | "", "binary") => Shape::OneBinary,
        ("one" | "", "string" | "") => Shape::OneText,
        _ => return Err("cardinality must be many or one, dataType binary, string or nothing".to_owned()),
    };
    let consumer_group = expand(binding.consumer_group.as_deref().unwrap_or("$Default"), settings);
    let connection = connection.to_owned();
    Ok(EventHubTrigger { binding: binding.name.clone(), event_hub, consumer_group, connection, shape, retry })
}

/// Source of the rules: `Azure/azure-functions-host` `Utility.cs` (`ValidateRetryOptions`).
fn retry_policy(retry: &Retry) -> Result<RetryPolicy, String> {
    let span = |name: &str, text: &Option<String>| -> Result<Duration, String> {
        let text = text.as_deref().ok_or_else(|| format!("retry.{name} is missing"))?;
        time_span::parse(text).ok_or_else(|| format!("retry.{name} '{text}' is no time span such as 00:00:10"))
    };
    let max_retries = match retry.max_retry_count {
        -1 => None,
        count => Some(u32::try_from(count).map_err(|_| format!("retry.maxRetryCount {count} must be -1 or more"))?),
    };
    match retry.strategy.to_ascii_lowercase().as_str() {
        "fixeddelay" => Ok(RetryPolicy::Fixed { max_retries, delay: span("delayInterval", &retry.delay_interval)? }),
        "exponentialbackoff" => {
            let minimum = span("minimumInterval", &retry.minimum_interval)?;
            let maximum = span("maximumInterval", &retry.maximum_interval)?;
            if maximum < minimum {
                return Err("retry.maximumInterval is shorter than retry.minimumInterval".to_owned());
            }
            Ok(RetryPolicy::Exponential { max_retries, minimum, maximum })
        }
        other => Err(format!("retry.strategy {other} is neither fixedDelay nor exponentialBackoff")),
    }
}
