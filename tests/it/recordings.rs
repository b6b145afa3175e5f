//! Every envelope that a real Functions host was recorded to send: the handler decodes those that its `function.json`
//! asks for, and refuses the others with the remedy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tts_iot_hub::functions::decode;

use crate::support::root;

/// All fixtures of a folder.
fn fixtures(folder: &str) -> Vec<Value> {
    let folder = root().join("simulator/src/functions_host/fixtures").join(folder);
    let files = std::fs::read_dir(&folder).expect("the fixtures of the simulator are there");
    let texts = files.map(|file| std::fs::read(file.expect("an entry can be read").path()).expect("it can be read"));
    texts.map(|text| serde_json::from_slice(&text).expect("fixtures are JSON")).collect()
}

fn is_empty(fixture: &Value) -> bool {
    fixture["events_given"].as_array().is_some_and(|events| events.iter().all(|event| event["body_b64"] == ""))
}

/// The bodies of a fixture, and whether they are batches of bytes.
fn envelopes(fixture: &Value) -> Vec<(&str, bool)> {
    let bodies = fixture["requests"].as_array().into_iter().flatten().map(|request| &request["body"]);
    let bodies = bodies.chain(fixture.get("body")).filter_map(Value::as_str);
    let is_batch = match fixture["shape"].as_str() {
        // A batch of empty texts is also one of no bytes.
        Some(shape) => shape == "many/binary" || (shape == "many/string" && is_empty(fixture)),
        None => {
            let caller = fixture["caller"].as_str().unwrap_or_default();
            caller.contains("/EvManyBinary ") || caller.contains("/EventHubForwarder ")
        }
    };
    bodies.map(|body| (body, is_batch)).collect()
}

#[test]
fn the_handler_decodes_every_recorded_envelope() {
    let fixtures: Vec<_> = ["envelopes", "retries", "admin"].into_iter().flat_map(fixtures).collect();
    let (mut decoded, mut refused) = (0, 0);
    for fixture in &fixtures {
        for (body, is_batch) in envelopes(fixture) {
            let name = &fixture["recording"];
            let result = decode("an-id", body.as_bytes());
            if !is_batch {
                let problem = result.expect_err("it is no batch of bytes").to_string();
                assert!(problem.contains("cardinality many and dataType binary"), "{name}: {problem}");
                refused += 1;
                continue;
            }
            let batch = result.unwrap_or_else(|problem| panic!("{name}: {problem}"));
            if let Some(given) = fixture["events_given"].as_array() {
                let given = given.iter().map(|event| STANDARD.decode(event["body_b64"].as_str().expect("it is text")));
                let given: Vec<_> = given.map(|body| body.expect("it is base64")).collect();
                let bodies: Vec<_> = batch.events.iter().map(|event| event.body.to_vec()).collect();
                assert_eq!(bodies, given, "{name}");
                assert!(batch.events.iter().all(|event| event.sequence_number.is_some()), "{name}");
            }
            if let Some(attempt) = fixture["attempt"].as_u64() {
                assert_eq!(u64::from(batch.retry_count), attempt, "{name}");
            }
            decoded += 1;
        }
    }
    assert!(decoded >= 20 && refused >= 20, "{decoded} decoded, {refused} refused");
}
