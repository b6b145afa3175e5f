//! Functions called through `/admin/functions`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::envelopes::{blank_body, hub_function};
use super::http_calls::{Got, exchange, recorded_host_json, recorded_options};
use super::scripted::{Answer, Scripted};
use super::{Bytes, blank, fixtures};
use crate::event_hubs::Namespace;
use crate::functions_host::tests::{AppFolder, PATIENCE};
use crate::functions_host::{FunctionsHost, Pace};

#[derive(Deserialize)]
struct Recording {
    recording: String,
    caller: Bytes,
    got: Bytes,
    /// Absent if the function was not called.
    head: Option<String>,
    #[serde(default)]
    body: String,
}

#[tokio::test]
pub(super) async fn every_recorded_call_by_hand_is_made_again() {
    let forever = json!({"strategy": "fixedDelay", "maxRetryCount": -1, "delayInterval": "00:00:03"});
    let functions = [
        hub_function("EvManyBinary", "many", "binary", "telemetry", None),
        hub_function("EvManyString", "many", "string", "telemetry", None),
        hub_function("EvManyNone", "many", "", "telemetry", None),
        hub_function("EvOneBinary", "one", "binary", "telemetry", None),
        hub_function("EvOneString", "one", "string", "telemetry", None),
        hub_function("EventHubForwarder", "many", "binary", "telemetry", Some(&forever)),
    ];
    let functions: Vec<_> = functions.iter().map(|(name, json)| (name.as_str(), json.clone())).collect();
    let app = AppFolder::new(recorded_host_json("00:00:20"), &functions);
    let (handler, port) = Scripted::start(Pace::REAL, |_| Answer::ok()).await;
    let mut options = recorded_options(&app, &Namespace::new(&[("telemetry", 1)]), Pace::REAL);
    options.external_port = Some(port);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    let mut calls = 0;
    for recording in fixtures::<Recording>("admin", |_| true) {
        let name = &recording.recording;
        let got = exchange(host.addr(), &recording.caller.bytes()).await;
        assert_eq!(Got::read(&got), Got::read(&recording.got.bytes()), "{name}");
        if let Some(head) = &recording.head {
            calls += 1;
            // The answer to the caller does not wait for the function.
            let came = async {
                while handler.calls().len() < calls {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(PATIENCE, came).await.unwrap_or_else(|_| panic!("{name}: no call"));
            let call = handler.calls().pop().expect("one came");
            assert_eq!(blank(&call.head), blank(head), "{name}");
            assert_eq!(blank_body(&String::from_utf8_lossy(&call.body)), blank_body(&recording.body), "{name}");
        }
    }
    assert!(host.wait_idle(PATIENCE).await);
    assert_eq!(handler.calls().len(), calls, "the others do not call the function");
}
