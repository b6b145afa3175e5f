use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{APP, Bench, KEY, answer, name};
use crate::faults::{Action, Faults, Rule, Stage};
use crate::stack::{Fault, LocalDevice, Server, StackOptions};

#[tokio::test]
async fn a_device_is_registered_in_four_steps_and_deleted_in_four() {
    let bench = Bench::start().await;
    bench.register("valve-1").await;
    assert_eq!(bench.stack.counters().registered, 1);
    let (_, device) = bench
        .call(Method::GET, &format!("/ns/applications/{APP}/devices/valve-1?field_mask=lorawan_version"), None)
        .await;
    assert_eq!(device["lorawan_version"], "MAC_V1_0_3");
    assert_eq!(device["ids"]["dev_eui"], "70B3D57E00000901");
    for server in ["/as", "/ns", "/js", ""] {
        let path = format!("{server}/applications/{APP}/devices/valve-1");
        let (status, _) = bench.call(Method::DELETE, &path, None).await;
        assert_eq!(status, 200, "{path}");
    }
    assert_eq!(bench.stack.counters().deleted, 1);
    assert!(!bench.stack.devices().is_known("valve-1"));
}

#[tokio::test]
async fn creating_refuses_what_is_taken_reserved_or_invalid() {
    let bench = Bench::start().await;
    bench.stack.register_local(&LocalDevice::otaa("valve-1", 1)).expect("a valid device");
    let taken = bench.stack.devices().identity["valve-1"]["ids"].clone();
    for (ids, status, error) in [
        (json!({"device_id": "valve-1"}), 409, "pkg/util/store:id_taken"),
        (
            json!({"device_id": "valve-2", "dev_eui": taken["dev_eui"], "join_eui": taken["join_eui"]}),
            409,
            "pkg/identityserver:end_device_euis_taken",
        ),
        (json!({"device_id": "weather"}), 400, "pkg/identityserver/blocklist:forbidden_id"),
        (json!({"device_id": "Valve"}), 400, "pkg/errors:validation"),
        (json!({"device_id": "valve-2", "dev_eui": "xyz"}), 400, ":"),
    ] {
        let body = json!({"end_device": {"ids": ids}});
        let (got, body) = bench.call(Method::POST, &format!("/applications/{APP}/devices"), Some(body)).await;
        assert_eq!((got, name(&body).as_str()), (status, error), "{ids}");
    }
}

#[tokio::test]
async fn a_put_without_a_mask_stores_nothing() {
    let bench = Bench::start().await;
    let path = format!("/js/applications/{APP}/devices/valve-1");
    let ids = json!({"dev_eui": "70B3D57E00000901", "join_eui": "70B3D57EFFFF0001"});
    let keys = json!({"app_key": {"key": "00112233445566778899AABBCCDDEEFF"}});
    let body = json!({"end_device": {"ids": ids, "root_keys": keys}});
    assert_eq!(bench.call(Method::PUT, &path, Some(body)).await.0, 200);
    assert_eq!(bench.stack.devices().of(Server::Join)["valve-1"]["root_keys"], Value::Null);
}

#[tokio::test]
async fn each_server_names_its_own_refusals() {
    let bench = Bench::start().await;
    let ids = json!({"dev_eui": "70B3D57E00000901", "join_eui": "70B3D57EFFFF0001"});
    let zero = json!({"app_key": {"key": "0".repeat(32)}});
    let plan = |plan: &str| json!({"ids": ids, "lorawan_version": "1.1", "lorawan_phy_version": "1.1-a", "frequency_plan_id": plan});
    let ns_mask = ["lorawan_version", "lorawan_phy_version", "frequency_plan_id"].as_slice();
    let keys = ["root_keys.app_key.key"].as_slice();
    for (server, device, mask, status, error) in [
        ("js", json!({"ids": {"dev_eui": "70B3D57E00000901"}}), keys, 400, "pkg/joinserver:no_join_eui"),
        ("js", json!({"ids": {"join_eui": "70B3D57E00000901"}}), keys, 400, "pkg/joinserver:no_dev_eui"),
        ("js", json!({"ids": ids, "root_keys": zero}), keys, 400, "pkg/joinserver:field_value"),
        ("js", json!({"ids": ids}), &["name"], 400, "pkg/rpcmiddleware/validator:field_mask_paths"),
        ("ns", plan("MARS_1"), ns_mask, 404, "pkg/frequencyplans:not_found"),
        ("ns", plan(""), ns_mask, 400, "pkg/networkserver:field_value"),
        ("as", json!({"ids": ids}), &["session.dev_addr"], 400, "pkg/applicationserver:field_value"),
        ("as", json!({"ids": ids}), &["supports_join"], 400, "pkg/rpcmiddleware/validator:field_mask_paths"),
    ] {
        let path = format!("/{server}/applications/{APP}/devices/valve-1");
        let body = json!({"end_device": device, "field_mask": {"paths": mask}});
        let (got, body) = bench.call(Method::PUT, &path, Some(body)).await;
        assert_eq!((got, name(&body).as_str()), (status, error), "{server} {device}");
    }
    for (server, error) in [
        ("/as", "pkg/applicationserver:device_not_found"),
        ("/ns", "pkg/networkserver:device_not_found"),
        ("/js", "pkg/joinserver:device_not_found"),
        ("", "pkg/identityserver/store:end_device_not_found"),
    ] {
        let path = format!("{server}/applications/{APP}/devices/valve-1");
        let (status, body) = bench.call(Method::DELETE, &path, None).await;
        assert_eq!((status, name(&body).as_str()), (404, error));
    }
}

#[tokio::test]
async fn a_key_is_refused_in_the_words_of_the_identity_server() {
    let options =
        StackOptions { rights: ["RIGHT_APPLICATION_DEVICES_READ".to_owned()].into(), ..StackOptions::default() };
    let bench = Bench::with(options).await;
    for (path, authorization, status, error) in [
        ("/applications/greenhouse/devices", Some("Bearer nonsense"), 400, "pkg/auth:token"),
        ("/applications/greenhouse/devices", Some("Bearer NNSXS.OTHER.X"), 401, "pkg/identityserver:api_key_not_found"),
        (
            "/applications/greenhouse/devices",
            Some("Bearer NNSXS.SIMULATEDKEY.X"),
            401,
            "pkg/identityserver:invalid_authorization",
        ),
        ("/applications/greenhouse/devices", Some("Basic eDp5"), 401, "pkg/identityserver:unsupported_authorization"),
        ("/applications/greenhouse/devices", None, 403, "pkg/auth/rights:no_application_rights"),
        ("/applications/other-app/devices", Some(KEY), 403, "pkg/auth/rights:no_application_rights"),
        (
            "/as/applications/greenhouse/devices/valve-1/down",
            Some(KEY),
            403,
            "pkg/auth/rights:insufficient_application_rights",
        ),
        ("/applications/greenhouse/device", Some(KEY), 404, ":"),
    ] {
        let mut request = bench.request(Method::GET, path);
        if let Some(value) = authorization {
            let value = if value == KEY { format!("Bearer {KEY}") } else { value.to_owned() };
            request = request.header("authorization", value);
        }
        let (got, body) = answer(request).await;
        assert_eq!((got, name(&body).as_str()), (status, error), "{path} {authorization:?}");
    }
    let (status, body) = bench.call(Method::GET, "/auth_info", None).await;
    assert_eq!((status, &body["api_key"]["entity_ids"]["application_ids"]["application_id"]), (200, &json!(APP)));
    assert_eq!(bench.call(Method::PATCH, "/auth_info", None).await.0, 501);
}

#[tokio::test]
async fn the_package_is_absent_until_the_edition_has_it() {
    let bench = Bench::start().await;
    let path = format!("/as/applications/{APP}/packages/azureiothub/events");
    let event = json!({"end_device_ids": {"device_id": "valve-1"}, "body": {}, "properties": {}});
    let body = json!({"events": [event]});
    let (status, answer) = bench.call(Method::POST, &path, Some(body.clone())).await;
    assert_eq!((status, &answer["details"]), (404, &json!([])));
    bench.stack.set_package(true);
    assert_eq!(bench.call(Method::POST, &path, Some(body)).await.0, 200);
    assert_eq!(bench.stack.events(), [event]);
    assert_eq!(bench.call(Method::POST, &path, Some(json!({"events": []}))).await.0, 400);
}

#[tokio::test]
async fn faults_strike_and_pass() {
    let bench = Bench::start().await;
    let identity = format!("/applications/{APP}/devices");
    let join = format!("/js/applications/{APP}/devices/valve-1");
    for (fault, on_identity, on_join) in [
        (Fault::Unavailable, 503, 503),
        (Fault::RateLimited, 429, 429),
        (Fault::Unauthorised, 401, 401),
        (Fault::FailServer(Server::Join), 200, 503),
        (Fault::None, 200, 404),
    ] {
        bench.stack.set_fault(fault);
        let statuses = (bench.call(Method::GET, &identity, None).await.0, bench.call(Method::GET, &join, None).await.0);
        assert_eq!(statuses, (on_identity, on_join), "{fault:?}");
    }
    for fault in [Fault::Refuse, Fault::LoseAnswers] {
        bench.stack.set_fault(fault);
        let request = bench.request(Method::GET, &identity).bearer_auth(KEY);
        assert!(request.send().await.is_err(), "{fault:?}");
    }
    bench.stack.set_fault(Fault::None);
    assert_eq!(bench.call(Method::GET, &identity, None).await.0, 200);
}

#[tokio::test]
async fn rules_strike_single_calls() {
    let faults = Faults::default();
    let bench = Bench::with(StackOptions { faults: faults.clone(), ..StackOptions::default() }).await;
    let once = |action| Rule { times: Some(1), ..Rule::new(Stage::StackApi, action) };
    let add = |rule| faults.add(rule).expect("the rule is sound");
    let path = format!("/applications/{APP}/devices");
    for (action, status) in [(Action::Refuse, 503), (Action::Throttle, 429)] {
        add(once(action));
        assert_eq!(bench.call(Method::GET, &path, None).await.0, status);
        assert_eq!(bench.call(Method::GET, &path, None).await.0, 200);
    }
    let (delay, start) = (Duration::from_millis(80), Instant::now());
    add(Rule { delay_ms: Some(80), ..once(Action::Delay) });
    assert_eq!(bench.call(Method::GET, &path, None).await.0, 200);
    assert!(start.elapsed() >= delay);
    add(once(Action::Close));
    let lost = bench.request(Method::GET, &path).bearer_auth(KEY).send().await;
    assert!(lost.is_err_and(|error| !error.is_timeout()));
    add(once(Action::Drop));
    let unheard = bench.request(Method::GET, &path).bearer_auth(KEY).timeout(delay).send().await;
    assert!(unheard.is_err_and(|error| error.is_timeout()));
    add(Rule { device: Some("valve-1".to_owned()), ..Rule::new(Stage::StackApi, Action::Refuse) });
    for (device, status) in [("valve-1", 503), ("valve-2", 404)] {
        let path = format!("/js/applications/{APP}/devices/{device}");
        assert_eq!(bench.call(Method::GET, &path, None).await.0, status, "{device}");
    }
}

#[tokio::test]
async fn a_webhook_set_by_the_api_is_called() {
    let bench = Bench::start().await;
    bench.stack.register_local(&LocalDevice::abp("valve-1", 1)).expect("a valid device");
    let path = format!("/as/webhooks/{APP}/bridge");
    let webhook =
        json!({"base_url": format!("{}/by-api/{{devID}}", bench.webhook_url), "format": "json", "uplink_message": {}});
    let body = json!({"webhook": webhook, "field_mask": {"paths": ["base_url", "format", "uplink_message"]}});
    assert_eq!(bench.call(Method::PUT, &path, Some(body)).await.0, 200);
    bench.stack.uplink("valve-1", 1, None).await;
    assert!(bench.receiver.take().iter().any(|seen| seen.uri == "/by-api/valve-1"));
    let (_, stored) = bench.call(Method::GET, &path, None).await;
    assert_eq!(stored["format"], "json");
    assert_eq!(bench.call(Method::DELETE, &path, None).await.0, 200);
    assert_eq!(bench.call(Method::GET, &path, None).await.0, 404);
}
