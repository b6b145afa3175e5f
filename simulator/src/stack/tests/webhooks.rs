use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{APP, Bench, name};
use crate::stack::{LocalDevice, Transmission, Webhook};

async fn with_device(device: &LocalDevice) -> Bench {
    let bench = Bench::start().await;
    bench.stack.register_local(device).expect("a valid device");
    bench
}

#[tokio::test]
async fn an_uplink_comes_as_the_things_stack_sends_it() {
    let bench = with_device(&LocalDevice::otaa("valve-1", 1)).await;
    let mut webhook = Webhook::new(format!("{}/api/uplink/{{devID}}", bench.webhook_url));
    webhook.headers.push(("x-functions-key".to_owned(), "abc".to_owned()));
    webhook.downlink_api_key = Some("NNSXS.A.B".to_owned());
    bench.stack.set_webhook(&webhook);
    assert!(bench.stack.join("valve-1").await.is_success());
    assert!(bench.stack.uplink("valve-1", 2, Some(json!({"open": true}))).await.is_success());
    assert!(bench.stack.uplink("valve-1", 2, None).await.is_success());

    let seen = bench.receiver.take();
    let [join, first, second] = seen.as_slice() else { panic!("three requests, not {}", seen.len()) };
    assert_eq!(first.uri, "/api/uplink/valve-1");
    let header = |name: &str| first.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("user-agent"), "TheThingsStack/3.32.1 (linux/amd64)");
    assert_eq!(header("x-tts-domain"), bench.stack.addr().to_string());
    assert_eq!(header("x-functions-key"), "abc");
    assert!(header("x-downlink-push").ends_with("/webhooks/simulator/devices/valve-1/down/push"));
    let (join, first, second) = (join.json(), first.json(), second.json());
    assert_eq!(join["end_device_ids"]["dev_addr"], first["end_device_ids"]["dev_addr"]);
    assert_eq!(first["uplink_message"]["decoded_payload"], json!({"open": true}));
    assert_eq!(first["uplink_message"].get("f_cnt"), None, "zero is left out");
    assert_eq!(second["uplink_message"]["f_cnt"], 1);
    assert_eq!(second["uplink_message"].get("decoded_payload"), None);

    let counters = bench.stack.counters();
    assert_eq!((counters.sent, counters.acknowledged, counters.refused), (3, 3, 0));
    assert_eq!((counters.by_type["uplink_message"], counters.outcomes["delivered"]), (2, 3));
}

#[tokio::test]
async fn a_refused_webhook_is_lost_and_counted() {
    let bench = with_device(&LocalDevice::abp("valve-1", 1)).await;
    bench.receiver.answer_with(StatusCode::SERVICE_UNAVAILABLE);
    let answer = bench.stack.uplink("valve-1", 1, None).await;
    assert_eq!((answer.status, answer.is_success()), (Some(503), false));
    assert_eq!(bench.receiver.take().len(), 1, "there is no second try");
    let raw = bench.stack.send_raw(b"no json", "valve-1").await;
    assert_eq!(raw.status, Some(503));
    assert_eq!(&bench.receiver.take()[0].body[..], b"no json");
    assert_eq!(bench.stack.counters().refused, 2);
}

#[tokio::test]
async fn a_downlink_is_announced_before_the_push_returns() {
    let bench = with_device(&LocalDevice::otaa("valve-1", 1)).await;
    bench.stack.join("valve-1").await;
    bench.receiver.take();
    let id = "iothub:valve-1:desired:3";
    let item = json!({"f_port": 5, "frm_payload": "AQI=", "confirmed": true, "correlation_ids": [id]});
    assert_eq!(bench.push("valve-1", item).await, (200, json!({})));
    let seen = bench.receiver.take();
    let queued = seen[0].json();
    let ids = queued["downlink_queued"]["correlation_ids"].as_array().expect("a list");
    assert!(ids[0].as_str().is_some_and(|own| own.starts_with("as:downlink:")));
    assert_eq!(ids[1], id);
    assert_eq!(queued["downlink_queued"].get("f_cnt"), None);
    assert_eq!(queued["downlink_queued"]["confirmed_retry"], json!({"attempt": 1}));

    let (_, listed) = bench.call(Method::GET, &format!("/as/applications/{APP}/devices/valve-1/down"), None).await;
    assert_eq!(listed["downlinks"][0]["correlation_ids"][1], id);
    assert_eq!(listed["downlinks"][0]["f_cnt"], 1);

    bench.stack.transmit_with("valve-1", Transmission::NotAcknowledged).await;
    assert_eq!(bench.receiver.take_kinds(), ["downlink_sent", "downlink_nack"]);
    bench.stack.transmit("valve-1").await;
    assert_eq!(bench.receiver.take_kinds(), ["downlink_sent", "downlink_ack"]);
    assert_eq!(bench.stack.queue("valve-1"), Vec::<Value>::new());
    assert_eq!(bench.stack.counters().downlinks_queued, 1);
}

#[tokio::test]
async fn attempts_without_an_acknowledgement_end_in_a_failure() {
    let bench = with_device(&LocalDevice::abp("valve-1", 1)).await;
    let item = json!({"f_port": 5, "frm_payload": "AQI=", "confirmed": true, "confirmed_retry": {"max_attempts": 2}});
    assert_eq!(bench.push("valve-1", item).await.0, 200);
    bench.stack.transmit_with("valve-1", Transmission::NotAcknowledged).await;
    bench.receiver.take();
    bench.stack.transmit_with("valve-1", Transmission::NotAcknowledged).await;
    let last = bench.receiver.take().pop().expect("messages").json();
    assert_eq!(last["downlink_failed"]["error"]["name"], "max_retries_reached");
    assert!(bench.stack.queue("valve-1").is_empty());
}

#[tokio::test]
async fn a_downlink_before_the_join_is_refused_and_reported() {
    let bench = with_device(&LocalDevice::otaa("valve-1", 1)).await;
    assert!(!bench.stack.has_session("valve-1"));
    let (status, body) = bench.push("valve-1", json!({"f_port": 5, "frm_payload": "AQI="})).await;
    assert_eq!((status, name(&body).as_str()), (400, "pkg/applicationserver:no_device_session"));
    assert_eq!(body["code"], 9);
    let failed = bench.receiver.take().remove(0).json();
    assert_eq!(failed["downlink_failed"]["error"]["name"], "no_device_session");
}

#[tokio::test]
async fn downlinks_are_refused_by_name() {
    let device = LocalDevice::abp("valve-1", 1).with_down_formatter("FORMATTER_JAVASCRIPT");
    let bench = with_device(&device).await;
    for (device, item, status, error) in [
        ("valve-9", json!({"f_port": 5, "frm_payload": "AQ=="}), 404, "pkg/applicationserver:device_not_found"),
        ("valve-1", json!({"frm_payload": "AQ=="}), 400, "pkg/applicationserver:no_f_port"),
        ("valve-1", json!({"f_port": 5, "frm_payload": ""}), 400, "pkg/applicationserver:no_payload"),
        (
            "valve-1",
            json!({"decoded_payload": {"encoderError": "no such valve"}}),
            409,
            "pkg/messageprocessors/javascript:output_errors",
        ),
        (
            "valve-1",
            json!({"f_port": 5, "frm_payload": "AQ==", "confirmed": true, "confirmed_retry": {"max_attempts": 33}}),
            400,
            "pkg/applicationserver:downlink_max_retries_invalid",
        ),
        ("valve-1", json!({"f_port": 224, "frm_payload": "AQ=="}), 400, "pkg/errors:validation"),
    ] {
        let (got, body) = bench.push(device, item.clone()).await;
        assert_eq!((got, name(&body).as_str()), (status, error), "{item}");
    }
    assert!(bench.stack.queue("valve-1").is_empty());
}

#[tokio::test]
async fn without_a_formatter_a_decoded_payload_becomes_an_empty_frame() {
    let bench = with_device(&LocalDevice::abp("valve-1", 1)).await;
    assert_eq!(bench.push("valve-1", json!({"f_port": 5, "decoded_payload": {"open": true}})).await.0, 200);
    assert_eq!(bench.stack.queue("valve-1")[0].get("frm_payload"), None);
    let path = format!("/as/applications/{APP}/devices/valve-1/down/replace");
    assert_eq!(bench.call(Method::POST, &path, Some(json!({"downlinks": []}))).await.0, 200);
    assert!(bench.stack.queue("valve-1").is_empty());
}

#[tokio::test]
async fn the_servers_stop_with_the_last_handle() {
    let bench = Bench::start().await;
    let address = bench.stack.addr();
    let other = bench.stack.clone();
    drop(bench);
    assert!(tokio::net::TcpStream::connect(address).await.is_ok());
    drop(other);
    let refused = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), refused).await.expect("the port is closed");
}

#[tokio::test]
async fn a_webhook_is_written_and_shown_as_the_registry_does_it() {
    let bench = Bench::start().await;
    let path = format!("/as/webhooks/{APP}/by-hand");
    let (status, body) = bench.call(Method::GET, &path, None).await;
    assert_eq!((status, name(&body).as_str()), (404, "pkg/redis:not_found"));
    let webhook = json!({
        "base_url": "https://h.example.net/hook{/devID}", "format": "json", "headers": {"k": "v"},
        "uplink_message": {"path": ""}, "join_accept": {"path": "/join"}, "paused": false,
    });
    let paths = ["base_url", "format", "headers", "uplink_message", "join_accept", "paused"];
    let put = |webhook: &Value, paths: &[&str]| Some(json!({"webhook": webhook, "field_mask": {"paths": paths}}));
    assert_eq!(bench.call(Method::PUT, &path, put(&webhook, &paths)).await.0, 200);
    let (_, shown) =
        bench.call(Method::GET, &format!("{path}?field_mask=uplink_message,join_accept,paused"), None).await;
    assert_eq!(shown["base_url"], webhook["base_url"], "always there");
    assert_eq!((&shown["uplink_message"], &shown["join_accept"]), (&json!({}), &json!({"path": "/join"})));
    assert!(shown.get("paused").is_none() && shown.get("headers").is_none(), "{shown}");
    // What the mask does not name stays.
    let other = json!({"base_url": "https://other.example.net/hook", "headers": {}});
    assert_eq!(bench.call(Method::PUT, &path, put(&other, &["base_url"])).await.0, 200);
    let (_, shown) = bench.call(Method::GET, &format!("{path}?field_mask=headers"), None).await;
    assert_eq!((&shown["base_url"], &shown["headers"]), (&other["base_url"], &webhook["headers"]));

    for (method, path, body, error) in [
        (Method::GET, format!("{path}?field_mask=colour"), None, "pkg/rpcmiddleware/validator:field_mask_paths"),
        (
            Method::PUT,
            path.clone(),
            put(&json!({}), &["health_status"]),
            "pkg/rpcmiddleware/validator:field_mask_paths",
        ),
        (Method::PUT, path.clone(), put(&json!({"base_url": "no address"}), &["base_url"]), "pkg/errors:validation"),
        (
            Method::PUT,
            path.clone(),
            put(&json!({"headers": {"n".repeat(65): "v"}}), &["headers"]),
            "pkg/errors:validation",
        ),
    ] {
        let (status, answer) = bench.call(method, &path, body).await;
        assert_eq!((status, name(&answer).as_str()), (400, error), "{path}");
    }
    for _ in 0..2 {
        assert_eq!(bench.call(Method::DELETE, &path, None).await.0, 200, "gone already is fine");
    }
    assert!(bench.stack.take_right("RIGHT_APPLICATION_SETTINGS_BASIC"));
    assert!(!bench.stack.take_right("RIGHT_APPLICATION_SETTINGS_BASIC"), "it has it no more");
    let (status, body) = bench.call(Method::PUT, &path, put(&webhook, &paths)).await;
    assert_eq!((status, name(&body).as_str()), (403, "pkg/auth/rights:insufficient_application_rights"));
    let (_, info) = bench.call(Method::GET, "/auth_info", None).await;
    let rights = info["api_key"]["api_key"]["rights"].as_array().expect("a list");
    assert!(!rights.contains(&json!("RIGHT_APPLICATION_SETTINGS_BASIC")) && !rights.is_empty(), "{info}");
}
