//! What the handler records, and what the queries in infra/monitoring read of it.

mod kql;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};
use simulator::fixtures;
use simulator::iot_hub::Fault;
use simulator::world::World;

use crate::support::*;
use kql::{Field, Kind, Token, is_word};

/// The records of a handler that were seen, as message → field → values.
#[derive(Debug, Default)]
struct Seen(BTreeMap<String, BTreeMap<String, Vec<Value>>>);

impl Seen {
    /// Takes the lines of a handler. Each must be one flat object.
    fn take(&mut self, lines: &[String]) {
        for line in lines {
            let record: Map<String, Value> =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("no record: {error}: {line}"));
            assert!(record.values().all(|value| !value.is_object() && !value.is_array()), "not flat: {line}");
            assert!(record["level"].is_string() && record["target"].is_string(), "{line}");
            let message = record["message"].as_str().unwrap_or_else(|| panic!("no message: {line}")).to_owned();
            let fields = self.0.entry(message).or_default();
            for (name, value) in record {
                fields.entry(name).or_default().push(value);
            }
        }
    }

    fn values(&self, message: &str, field: &str) -> &[Value] {
        self.0.get(message).and_then(|fields| fields.get(field)).map_or(&[], Vec::as_slice)
    }

    /// Why a query that reads this field would find nothing, or something else than it expects.
    fn missing(&self, field: &Field) -> Option<String> {
        let Field { message, name, kind } = field;
        let values = self.values(message, name);
        let right = |value: &Value| match kind {
            Kind::Text => value.is_string(),
            Kind::Number => value.is_i64() || value.is_u64(),
            Kind::Truth => value.is_boolean(),
        };
        let wrong = values.iter().find(|value| !right(value));
        match (values, wrong) {
            ([], _) => Some(format!("{message}: {name} was never recorded")),
            (_, Some(value)) => Some(format!("{message}: {name} is read as another type than it has: {value}")),
            _ => None,
        }
    }
}

fn monitoring() -> PathBuf {
    root().join("infra/monitoring")
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(monitoring().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The queries by name.
fn queries() -> BTreeMap<String, String> {
    let folder = std::fs::read_dir(monitoring().join("queries")).expect("the folder is there");
    let names = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    names.map(|name| (name.clone(), text_of(&format!("queries/{name}")))).collect()
}

/// A word of payloads, which no record may hold at info or above.
const PAYLOAD: &str = "0dd-payl0ad";

fn payload(n: u32) -> Value {
    json!({"n": n, "word": PAYLOAD})
}

/// What happens to webhooks: each outcome, each type of message.
async fn webhooks(world: &World) {
    for fixture in fixtures::webhooks() {
        assert_eq!(post_with(world, fixture.body, |request| request).await.outcome(), "delivered", "{}", fixture.name);
    }
    let up = uplink("probe-0001", 1, &payload(1));
    assert_eq!(post(world, &up).await.outcome(), "delivered");
    assert_eq!(post(world, &up).await.outcome(), "duplicate");
    let unknown = json!({"end_device_ids": up["end_device_ids"], "uplink_of_tomorrow": {}});
    assert_eq!(post(world, &unknown).await.outcome(), "ignored");
    assert_eq!(post_with(world, format!("{{not json: {PAYLOAD}"), |request| request).await.status, 400);
    service(world).create_device("probe-off", &json!({})).await.expect("the device is made");
    service(world).set_enabled("probe-off", false).await.expect("the device is disabled");
    assert_eq!(post(world, &uplink("probe-off", 1, &payload(4))).await.outcome(), "dead_lettered");
}

/// An outage of IoT Hub, and one of Event Hubs too: parked and delivered; neither; and what is no parked uplink at all, which
/// cannot be dead-lettered at first.
async fn parked(world: &World) {
    world.iot_hub.set_fault(Fault::Refuse);
    assert_eq!(post(world, &uplink("probe-0001", 2, &payload(2))).await.outcome(), "parked");
    world.event_hubs.set_fault(simulator::event_hubs::Fault::Refuse);
    assert_eq!(post(world, &uplink("probe-0001", 3, &payload(3))).await.status, 503);
    expect("a try that leaves it parked", || world.functions.counters().retries >= 1).await;
    world.iot_hub.set_fault(Fault::None);
    expect("the parked uplink in the twin", || reported(world, "probe-0001")["decodedPayload"]["n"] == 2).await;
    let rubbish = simulator::event_hubs::Event { body: payload(5).to_string().into(), ..Default::default() };
    let retries = world.functions.counters().retries;
    world.events.hub("parked-uplinks").expect("it exists").append(rubbish);
    expect("a batch to be delivered again", || world.functions.counters().retries > retries).await;
    world.event_hubs.set_fault(simulator::event_hubs::Fault::None);
    expect("both dead letters", || events(world, "dead-letters").len() == 2).await;
}

/// Events of the hub: done, impossible, and failing in an outage of The Things Stack.
async fn hub_events(world: &World) {
    service(world).create_device("meter-0001", &lorawan_tags(1)).await.expect("made");
    service(world).create_device("Not_A_Stack_Id", &lorawan_tags(2)).await.expect("made");
    expect("the device registered", || world.stack.counters().registered == 1).await;
    expect("the third dead letter", || events(world, "dead-letters").len() == 3).await;
    let retries = world.functions.counters().retries;
    world.stack.set_fault(simulator::stack::Fault::Unavailable);
    service(world).create_device("meter-0002", &lorawan_tags(3)).await.expect("made");
    expect("the host retries", || world.functions.counters().retries > retries).await;
    world.stack.set_fault(simulator::stack::Fault::None);
    expect("the second device registered", || world.stack.counters().registered == 2).await;
    assert!(world.functions.wait_idle(PATIENCE).await);
}

/// Everything that the records tell of, once.
async fn happen() -> Seen {
    let world = world_with(&[("LOG_FORMAT", "json")]).await;
    webhooks(&world).await;
    parked(&world).await;
    hub_events(&world).await;
    let mut seen = Seen::default();
    let lines = world.functions.handler_log();
    assert!(lines.iter().all(|line| !line.contains(PAYLOAD)), "{lines:#?}");
    seen.take(&lines);
    // One record for each dead letter, whichever function wrote it.
    let functions: BTreeSet<_> = seen.values("dead letter", "function").iter().filter_map(Value::as_str).collect();
    assert_eq!(functions, BTreeSet::from(["UplinkIngress", "ParkedUplinks", "EventHubForwarder"]));
    assert_eq!(seen.values("dead letter", "message").len(), events(&world, "dead-letters").len());
    seen
}

/// What a handler writes to stderr that refuses to start.
fn refusal() -> String {
    let reference = "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/s)";
    let mut command = Command::new(handler());
    command.arg("serve").env_clear().env("LOG_FORMAT", "json").env("STACK_API_KEY", reference);
    String::from_utf8(command.output().expect("the binary runs").stderr).expect("UTF-8")
}

#[tokio::test]
async fn every_field_that_a_query_reads_is_one_that_the_handler_records() {
    let (seen, refusal) = (happen().await, refusal());
    let mut problems = Vec::new();
    for (name, query) in queries() {
        let mut tell = |problem: String| problems.push(format!("{name}: {problem}"));
        let reading = kql::read(&query).unwrap_or_else(|problem| {
            tell(problem);
            kql::Reading::default()
        });
        for message in &reading.messages {
            if !seen.0.contains_key(message) {
                tell(format!("no record has the message `{message}`"));
            }
        }
        reading.fields.iter().filter_map(|field| seen.missing(field)).for_each(&mut tell);
        for (field, value) in &reading.values {
            let values = seen.values(&field.message, &field.name);
            if !value.is_empty() && !values.iter().any(|seen| seen == value) {
                tell(format!("{}: {} never was `{value}`", field.message, field.name));
            }
        }
        for text in &reading.plain {
            // A line is one entry of the log, and `has` looks for whole words in one entry.
            if !refusal.lines().any(|line| line.contains(text)) {
                tell(format!("stderr never said `{text}`"));
            }
        }
    }
    assert!(problems.is_empty(), "{}\n\nrecorded: {:#?}", problems.join("\n"), seen.0.keys());
}

#[test]
fn a_query_that_reads_what_is_not_recorded_is_found() {
    let mut seen = Seen::default();
    seen.take(&[
        r#"{"level":"INFO","message":"webhook","outcome":"parked","parked":true,"ms":12,"target":"t"}"#.to_owned()
    ]);
    let field = |message: &str, name: &str, kind| Field { message: message.to_owned(), name: name.to_owned(), kind };
    assert_eq!(seen.missing(&field("webhook", "ms", Kind::Number)), None);
    assert_eq!(seen.missing(&field("webhook", "outcome", Kind::Text)), None);
    assert_eq!(seen.missing(&field("webhook", "parked", Kind::Truth)), None);
    for missing in [
        field("webhook", "mss", Kind::Number),
        field("webhok", "ms", Kind::Number),
        field("webhook", "ms", Kind::Text),
        field("webhook", "outcome", Kind::Number),
        field("webhook", "outcome", Kind::Truth),
        field("webhook", "parked", Kind::Text),
    ] {
        assert!(seen.missing(&missing).is_some(), "{missing:?}");
    }
}

/// The texts that `MetricName` is compared with.
fn metric_names(tokens: &[Token]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for at in (0..tokens.len()).filter(|&at| is_word(&tokens[at], "MetricName")) {
        let rest =
            tokens[at + 1..].iter().skip_while(|token| is_word(token, "in") || matches!(token, Token::Sign('=' | '(')));
        let texts = rest.take_while(|token| matches!(token, Token::Text(_) | Token::Sign(',')));
        // A comparison with one text ends at the comma.
        let is_list = is_word(&tokens[at + 1], "in");
        let texts = texts.filter_map(|token| if let Token::Text(text) = token { Some(text.clone()) } else { None });
        let found: Vec<_> = texts.take(if is_list { usize::MAX } else { 1 }).collect();
        assert!(!found.is_empty(), "MetricName is compared with no text: {:?}", &tokens[at..]);
        names.extend(found);
    }
    names
}

#[test]
fn every_metric_is_one_that_microsoft_documents() {
    let documented: Map<String, Value> = serde_json::from_str(&text_of("metrics.json")).expect("JSON");
    let mut used = BTreeSet::new();
    for (name, query) in queries() {
        for metric in metric_names(&kql::tokens(&query).expect("it is read elsewhere")) {
            let listed = documented.get(&metric).unwrap_or_else(|| panic!("{name}: {metric} is not in metrics.json"));
            assert_eq!(listed["exported"], true, "{name}: {metric} does not come into AzureMetrics");
            used.insert(metric);
        }
    }
    let alerts = text_of("alerts.bicep");
    let in_alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("metric: '")?.strip_suffix('\''));
    for metric in in_alerts {
        assert!(documented.contains_key(metric), "alerts.bicep: {metric} is not in metrics.json");
        used.insert(metric.to_owned());
    }
    for (metric, listed) in documented {
        assert!(used.contains(&metric), "{metric} is in metrics.json and nowhere used");
        assert!(listed["source"].as_str().is_some_and(|source| source.starts_with("https://learn.microsoft.com/")));
    }
}

#[test]
fn every_query_is_shown_explained_and_told_the_size_of_the_hub() {
    let (alerts, workbook, readme) = (text_of("alerts.bicep"), text_of("workbook.bicep"), text_of("README.md"));
    for (name, query) in queries() {
        let load = format!("loadTextContent('queries/{name}')");
        let shown = workbook.contains(&load);
        assert!(shown || alerts.contains(&load), "{name} is neither in the workbook nor an alert");
        assert!(readme.contains(&format!("queries/{name}")), "{name} is not in the README");
        // An alert can look back two days only.
        let tokens = kql::tokens(&query).expect("it is read elsewhere");
        let long = tokens.windows(3).any(|window| match window {
            [ago, Token::Sign('('), Token::Word(time)] if is_word(ago, "ago") => {
                !["16m", "1d", "2d"].contains(&time.as_str())
            }
            _ => false,
        });
        assert!(!(long && alerts.contains(&load)), "{name} looks back further than an alert can");
        // The workbook puts the hub's size in place of these lines.
        let lines = ["let sku = \"S1\";", "let units = 1;"];
        if query.contains("let sku") || query.contains("let units") {
            assert!(lines.iter().all(|line| query.matches(line).count() == 1), "{name}: {lines:?}");
            assert!(lines.iter().all(|line| workbook.contains(line)), "workbook.bicep: {lines:?}");
            assert!(shown && !alerts.contains(&load), "{name} knows no size but S1 with one unit in an alert");
        }
    }
}
