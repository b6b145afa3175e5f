//! The control API over a real socket, around a world whose handler nobody starts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::happenings::Kind;
use crate::service_client::ServiceClient;
use crate::world::{EventHubsOptions, Handler, Ports, WorldOptions, find_app_root};

const PATIENCE: Duration = Duration::from_secs(20);

struct Desk {
    world: Arc<World>,
    control: Control,
    http: reqwest::Client,
}

impl Desk {
    async fn open() -> Self {
        let options = WorldOptions {
            ports: Ports::default(),
            app_root: find_app_root(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the project has a host.json"),
            handler: Handler::ByHand,
            settings: BTreeMap::new(),
            event_hubs: EventHubsOptions::default(),
            infra: None,
            limits: None,
            without_stack_rights: Vec::new(),
            log: Box::new(|_| {}),
        };
        let world = Arc::new(World::start(options).await.expect("the world starts"));
        let control = Control::start(0, world.clone()).await.expect("a port is free");
        let http = reqwest::Client::builder().timeout(PATIENCE).build().expect("the settings are valid");
        Self { world, control, http }
    }

    async fn with_device(id: &str) -> Self {
        let desk = Self::open().await;
        let service = ServiceClient::new(&desk.world, "iothubowner").expect("the policy exists");
        service.create_device(id, &json!({"room": "r1"})).await.expect("the hub takes it");
        desk
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.control.addr()))
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.expect("the simulator answers");
        (answer.status(), answer.json().await.expect("every answer of the API is JSON"))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }
}

/// Reads a stream of events until it has this text.
async fn read_until(mut answer: reqwest::Response, text: &'static str) -> String {
    let mut read = String::new();
    let reading = async {
        while !read.contains(text) {
            let chunk = answer.chunk().await.expect("it is whole").expect("the stream goes on");
            read.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("in vain waited for {text}"));
    read
}

#[tokio::test]
async fn other_sites_are_turned_away_and_every_answer_forbids_them_to_use_it() {
    let desk = Desk::open().await;
    for (name, value, status) in [
        (HOST, "rebound.example", 421),
        (ORIGIN, "http://evil.example", 403),
        (http::HeaderName::from_static("sec-fetch-site"), "cross-site", 403),
    ] {
        let answer = desk.request(Method::GET, "/sim/world").header(name, value).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{value}");
        let body: Value = answer.json().await.expect("it is JSON");
        assert!(body["error"].is_string() && !body.to_string().contains("SharedAccessKey"), "{body}");
    }
    let page = desk.request(Method::GET, "/").send().await.expect("an answer");
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()["content-security-policy"].to_str().expect("it is text");
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    assert!(page.text().await.expect("it is text").contains("<h1>"));
    assert!(desk.control.addr().ip().is_loopback());
}

#[tokio::test]
async fn bad_calls_are_told_what_is_wrong_as_json() {
    let desk = Desk::with_device("d1").await;
    let uplink = "/sim/stack/uplink";
    for (method, path, body, status) in [
        (Method::GET, "/sim/nothing", None, 404),
        (Method::GET, uplink, None, 405),
        (Method::POST, uplink, Some(json!({"device": "d9", "f_port": 1})), 409),
        (Method::POST, uplink, Some(json!({"device": "d9", "f_port": 1, "colour": "red"})), 400),
        (Method::POST, uplink, Some(json!({"device": "d9", "f_port": 256})), 400),
        (Method::POST, uplink, Some(json!({"device": "A_B", "f_port": 1, "join": true})), 400),
        (Method::POST, uplink, Some(json!({"device": "x".repeat(MAX_BODY_BYTES), "f_port": 1})), 413),
        (Method::POST, "/sim/stack/transmit", Some(json!({"device": "d1"})), 409),
        (Method::POST, "/sim/devices/unknown/disable", None, 404),
        (Method::POST, "/sim/devices/unknown/takeover", None, 404),
        (Method::PATCH, "/sim/devices/unknown/desired", Some(json!({})), 404),
        (Method::PATCH, "/sim/devices/d1/desired", Some(json!([])), 400),
        (Method::PATCH, "/sim/devices/d1/desired", Some(json!({"a.b": 1})), 400),
        (Method::PUT, "/sim/switches", Some(json!({"hub": "sleepy"})), 400),
        (Method::PUT, "/sim/switches", Some(json!({"cloud": "silent"})), 400),
        (Method::POST, "/sim/handler/kill", None, 409),
        (Method::GET, "/sim/token", None, 400),
        (Method::GET, "/sim/state?limit=x", None, 400),
        (Method::DELETE, "/sim/faults/abc", None, 400),
        (Method::POST, "/sim/devices/%ff/enable", None, 400),
        (Method::POST, "/sim/clock", Some(json!({"skew_s": i64::MAX})), 400),
        (Method::POST, "/sim/clock", Some(json!({"skew_s": i64::MIN})), 400),
    ] {
        let (answered, told) = desk.call(method, path, body).await;
        assert_eq!(answered.as_u16(), status, "{path}: {told}");
        assert!(told["error"].as_str().is_some_and(|error| error.len() > 15), "{path}: {told}");
    }
    let plain = desk.request(Method::PUT, "/sim/switches").header(CONTENT_TYPE, "text/plain").body("{}");
    assert_eq!(plain.send().await.expect("an answer").status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn desired_properties_are_merged_and_null_deletes() {
    let desk = Desk::with_device("d1").await;
    let path = "/sim/devices/d1/desired";
    assert_eq!(desk.call(Method::PATCH, path, Some(json!({"a": 1, "b": {"c": 2}}))).await.0, StatusCode::OK);
    let (_, desired) = desk.call(Method::PUT, path, Some(json!({"a": null, "b": {"d": 3}}))).await;
    assert_eq!(desired, json!({"b": {"c": 2, "d": 3}}));
    let state = desk.get("/sim/state").await;
    let device = &state["hub"]["devices"][0];
    assert_eq!(device["desired"], desired);
    assert_eq!((&device["versions"]["desired"], &device["tags"]), (&json!(3), &json!({"room": "r1"})));
}

#[tokio::test]
async fn a_device_is_disabled_and_enabled_and_shows_it() {
    let desk = Desk::with_device("d1").await;
    for (what, status) in [("disable", "disabled"), ("enable", "enabled")] {
        assert_eq!(desk.call(Method::POST, &format!("/sim/devices/d1/{what}"), None).await.0, StatusCode::OK);
        assert_eq!(desk.get("/sim/state").await["hub"]["devices"][0]["status"], status);
    }
    let (_, taken) = desk.call(Method::POST, "/sim/devices/d1/takeover", None).await;
    assert_eq!(taken["was_connected"], false);
}

#[tokio::test]
async fn the_state_is_filtered_and_limited() {
    let desk = Desk::with_device("probe-1").await;
    let service = ServiceClient::new(&desk.world, "iothubowner").expect("the policy exists");
    service.create_device("valve-1", &json!({})).await.expect("the hub takes it");
    for (query, total, listed) in [("", 2, 2), ("?q=val", 1, 1), ("?limit=1", 2, 1), ("?limit=100000", 2, 2)] {
        let hub = desk.get(&format!("/sim/state{query}")).await["hub"].take();
        assert_eq!((&hub["total"], hub["devices"].as_array().map(Vec::len)), (&json!(total), Some(listed)), "{query}");
    }
}

#[tokio::test]
async fn a_device_that_is_asked_for_is_told_wherever_it_stands() {
    let desk = Desk::with_device("probe-1").await;
    for (query, told) in [("", None), ("&device=probe-1", Some("probe-1")), ("&device=probe", None)] {
        let hub = desk.get(&format!("/sim/state?q=valve&limit=1{query}")).await["hub"].take();
        assert_eq!((&hub["devices"], hub["device"]["id"].as_str()), (&json!([]), told), "{query}");
    }
}

#[tokio::test]
async fn switches_break_services_until_they_are_cleared() {
    let desk = Desk::open().await;
    let wanted = json!({"hub": "silent", "event_hubs": "busy"});
    let (_, now) = desk.call(Method::PUT, "/sim/switches", Some(wanted)).await;
    assert_eq!(now, json!({"hub": "silent", "stack": "none", "event_hubs": "busy"}));
    assert_eq!(desk.world.iot_hub.fault(), crate::iot_hub::Fault::Silent);
    assert_eq!(desk.get("/sim/state").await["switches"], now);
    // All or nothing: the known half of a wrong call does not count.
    let half = json!({"stack": "refuse", "hub": "sleepy"});
    assert_eq!(desk.call(Method::PUT, "/sim/switches", Some(half)).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(desk.get("/sim/state").await["switches"], now);
    let (_, now) = desk.call(Method::DELETE, "/sim/switches", None).await;
    assert_eq!(now, json!({"hub": "none", "stack": "none", "event_hubs": "none"}));
}

#[tokio::test]
async fn rules_come_and_go_and_one_that_makes_no_sense_is_refused() {
    let desk = Desk::open().await;
    let rule = json!({"stage": "puback", "action": "close", "times": 3});
    let (status, added) = desk.call(Method::POST, "/sim/faults", Some(rule.clone())).await;
    assert_eq!(status, StatusCode::OK, "{added}");
    let listed = desk.get("/sim/faults").await;
    assert_eq!(
        (&listed[0]["id"], &listed[0]["rule"]["stage"], &listed[0]["hits"]),
        (&added["id"], &json!("puback"), &json!(0))
    );
    assert_eq!(desk.get("/sim/state").await["faults"], listed);
    for wrong in [
        json!({"stage": "puback"}),
        json!({"stage": "puback", "action": "throttle"}),
        json!({"stage": "nowhere", "action": "close"}),
    ] {
        let (status, problem) = desk.call(Method::POST, "/sim/faults", Some(wrong.clone())).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(problem["error"].is_string(), "{problem}");
    }
    let path = format!("/sim/faults/{}", added["id"]);
    assert_eq!(desk.call(Method::DELETE, &path, None).await.0, StatusCode::OK);
    assert_eq!(desk.call(Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND);
    desk.call(Method::POST, "/sim/faults", Some(rule)).await;
    desk.call(Method::POST, "/sim/clock", Some(json!({"skew_s": -90}))).await;
    assert_eq!(desk.get("/sim/state").await["clock_skew_s"], -90);
    desk.call(Method::PUT, "/sim/switches", Some(json!({"hub": "none"}))).await;
    desk.call(Method::DELETE, "/sim/switches", None).await;
    assert_eq!(desk.get("/sim/faults").await, json!([]));
    assert_eq!(desk.get("/sim/state").await["clock_skew_s"], 0);
    let told: Vec<_> = desk.world.happenings.after(0).happenings.into_iter().map(|one| one.title.clone()).collect();
    assert!(told.ends_with(&["faults: 1 fault rule(s), clock -90 s".into(), "all faults cleared".into()]), "{told:?}");
}

#[tokio::test]
async fn a_fast_clock_ends_tokens_early() {
    let desk = Desk::with_device("d1").await;
    let service = ServiceClient::new(&desk.world, "iothubowner").expect("the policy exists");
    service.patch_twin("d1", &json!({"tags": {"seen": true}})).await.expect("the token holds");
    let day = json!({"skew_s": 10 * 24 * 3600});
    assert_eq!(desk.call(Method::POST, "/sim/clock", Some(day)).await.0, StatusCode::OK);
    assert!(service.patch_twin("d1", &json!({"tags": {"seen": true}})).await.is_err());
    desk.call(Method::POST, "/sim/clock", Some(json!({"skew_s": 0}))).await;
    service.patch_twin("d1", &json!({"tags": {"seen": true}})).await.expect("the clock is right again");
}

#[tokio::test]
async fn a_token_opens_the_service_that_it_names() {
    let desk = Desk::open().await;
    let answer = desk.get("/sim/token?resource=https://iothubs.azure.net/.default").await;
    let token = answer["access_token"].as_str().expect("it is a text");
    assert!(desk.world.entra.check(token, crate::entra::IOT_HUBS).is_ok());
    assert!(desk.world.entra.check(token, crate::entra::EVENT_HUBS).is_err());
}

#[tokio::test]
async fn events_stream_and_resume_after_the_last_one_seen() {
    let desk = Desk::open().await;
    desk.world.happenings.note(Kind::Fault, None, || ("first", Value::Null));
    let stream = || desk.request(Method::GET, "/sim/events");
    let answer = stream().send().await.expect("an answer");
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
    let reading = tokio::spawn(read_until(answer, "second"));
    desk.world.happenings.note(Kind::Telemetry, Some("d1"), || ("second", json!({"bytes": 2})));
    let read = reading.await.expect("no panic");
    assert!(read.contains("event: happening") && read.contains("first") && read.contains(r#""device":"d1""#), "{read}");
    let id = read.lines().rfind(|line| line.starts_with("id: ")).expect("events have ids").replace("id: ", "");
    let first = format!("{}-1", id.rsplit_once('-').expect("run and number").0);
    let after = desk.request(Method::GET, &format!("/sim/events?after={first}"));
    for resumed in [stream().header("last-event-id", first), after] {
        let read = read_until(resumed.send().await.expect("an answer"), "second").await;
        assert!(!read.contains("first") && !read.contains("fresh"), "{read}");
    }
    let read = read_until(stream().header("last-event-id", "old-9").send().await.expect("an answer"), "second").await;
    assert!(read.contains("event: fresh") && read.contains("first"), "{read}");
}

#[tokio::test]
async fn streams_are_limited_and_do_not_hold_up_the_end() {
    let desk = Desk::open().await;
    let mut open = Vec::new();
    for _ in 0..MAX_READERS {
        open.push(desk.request(Method::GET, "/sim/events").send().await.expect("an answer"));
    }
    let (status, told) = desk.call(Method::GET, "/sim/events", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{told}");
    let Desk { world, control, .. } = desk;
    tokio::time::timeout(DRAIN, control.shutdown()).await.expect("the streams end at once");
    assert!(Arc::into_inner(world).is_some(), "nothing holds the world any more");
}

#[tokio::test]
async fn no_key_is_in_anything_that_happens() {
    let desk = Desk::open().await;
    let service = ServiceClient::new(&desk.world, "iothubowner").expect("the policy exists");
    let root_key = "5EC4E700112233445566778899AABBCC";
    service.create_device("d1", &json!({"lorawan": {"appKey": root_key}})).await.expect("the hub takes it");
    service.patch_desired("d1", &json!({"a": 1})).await.expect("the hub takes it");
    service.set_enabled("d1", false).await.expect("the hub takes it");
    service.delete_device("d1").await.expect("the hub takes it");
    let told = format!("{:?}", desk.world.happenings.after(0).happenings);
    for kind in ["Identity", "Desired", "Event"] {
        assert!(told.contains(&format!("kind: {kind}")), "{told}");
    }
    let description = desk.world.description();
    let policies = description["policies"].as_array().expect("there are some").iter().map(|policy| &policy["key"]);
    let (_, [(_, function_key), (_, webhook_secret)]) = desk.world.webhook();
    let mut secrets: Vec<&str> = policies.filter_map(Value::as_str).collect();
    secrets.extend([root_key, function_key, webhook_secret, desk.world.settings["STACK_API_KEY"].as_str()]);
    secrets.push("SharedAccess");
    for secret in secrets {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}
