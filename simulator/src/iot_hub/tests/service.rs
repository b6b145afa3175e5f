use http::{Method, StatusCode};
use mqtt_proto::v3::ConnectReturnCode;
use serde_json::{Value, json};

use super::world::{FAR_FUTURE, HOST, World, connect, fleet_token, key};
use crate::iot_hub::sas::mint;

fn token(policy: &str) -> String {
    mint(HOST, &key(policy), FAR_FUTURE, Some(policy))
}

#[tokio::test]
async fn a_put_without_if_match_creates_once() {
    let world = World::start().await;
    let created = world.create("d1").await;
    for name in ["primaryKey", "secondaryKey"] {
        assert!(created["authentication"]["symmetricKey"][name].is_string(), "{name} was minted");
    }
    assert_eq!((&created["status"], &created["connectionState"]), (&json!("enabled"), &json!("Disconnected")));
    let (status, error) = world.call(Method::PUT, "/devices/d1", "", json!({"deviceId": "d1"})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        error["Message"].as_str().is_some_and(|text| text.starts_with("ErrorCode:DeviceAlreadyExists;")),
        "{error}"
    );
    let (status, read) = world.call(Method::GET, "/devices/d1", "", Value::Null).await;
    assert_eq!((status, read), (StatusCode::OK, created));
    assert_eq!(world.hub.counters().devices_created, 1);
}

#[tokio::test]
async fn an_update_needs_an_etag_that_holds() {
    let world = World::start().await;
    let etag = format!("\"{}\"", world.create("d1").await["etag"].as_str().expect("it is a text"));
    let body = json!({"deviceId": "d1", "status": "disabled"});
    for (if_match, expected) in [
        ("\"stale\"", StatusCode::PRECONDITION_FAILED),
        (etag.as_str(), StatusCode::OK),
        (etag.as_str(), StatusCode::PRECONDITION_FAILED),
    ] {
        let (status, device) = world.call(Method::PUT, "/devices/d1", if_match, body.clone()).await;
        assert_eq!(status, expected, "{device}");
    }
    let missing = world.call(Method::PUT, "/devices/none", "*", json!({"deviceId": "none"})).await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_delete_needs_if_match_and_a_device() {
    let world = World::start().await;
    world.create("d1").await;
    for (if_match, status) in [
        ("", StatusCode::PRECONDITION_FAILED),
        ("\"stale\"", StatusCode::PRECONDITION_FAILED),
        ("\"*\"", StatusCode::NO_CONTENT),
        ("*", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(world.call(Method::DELETE, "/devices/d1", if_match, Value::Null).await.0, status, "{if_match}");
    }
    assert_eq!(world.hub.twin("d1"), None);
}

#[tokio::test]
async fn errors_name_themselves_in_header_and_body() {
    let world = World::start().await;
    let response = world.request(Method::GET, "/twins/none", &token("owner")).send().await.expect("the hub answers");
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers()["iothub-errorcode"], "DeviceNotFound");
    let body: Value = response.json().await.expect("it is JSON");
    assert_eq!(body["Message"], "ErrorCode:DeviceNotFound;Device 'none' unknown");
}

#[tokio::test]
async fn a_call_needs_the_right_of_its_kind() {
    let world = World::start().await;
    world.create("d1").await;
    let (ok, denied) = (StatusCode::OK, StatusCode::UNAUTHORIZED);
    for (method, path, policy, expected) in [
        (Method::GET, "/devices/d1", "registryReadWrite", ok),
        (Method::GET, "/devices", "registryReadWrite", ok),
        (Method::GET, "/twins/d1", "registryReadWrite", denied),
        (Method::GET, "/twins/d1", "service", ok),
        (Method::GET, "/devices/d1", "service", denied),
        (Method::DELETE, "/devices/d1", "service", denied),
        (Method::GET, "/devices/d1", "device", denied),
        (Method::GET, "/devices/d1", "nobody", denied),
    ] {
        let response = world.request(method, path, &token(policy)).send().await.expect("the hub answers");
        assert_eq!(response.status(), expected, "{path} by {policy}");
    }
    for bad in
        ["", "Bearer x", &mint(HOST, b"wrong", FAR_FUTURE, Some("owner")), &mint(HOST, &key("owner"), 1, Some("owner"))]
    {
        let response = world.request(Method::GET, "/devices/d1", bad).send().await.expect("the hub answers");
        assert_eq!(response.status(), denied);
        assert_eq!(response.headers()["iothub-errorcode"], "IotHubUnauthorizedAccess");
    }
}

#[tokio::test]
async fn a_token_for_one_twin_opens_no_other() {
    let world = World::start().await;
    world.create("d1").await;
    world.create("d12").await;
    let token = mint(&format!("{HOST}/twins/d1"), &key("service"), FAR_FUTURE, Some("service"));
    for (path, expected) in [("/twins/d1", StatusCode::OK), ("/twins/d12", StatusCode::UNAUTHORIZED)] {
        let response = world.request(Method::GET, path, &token).send().await.expect("the hub answers");
        assert_eq!(response.status(), expected, "{path}");
    }
}

#[tokio::test]
async fn a_twin_write_moves_the_etag_that_the_next_one_may_ask_for() {
    let world = World::start().await;
    world.create("d1").await;
    let first = world.hub.twin("d1").expect("it is there")["etag"].clone();
    assert_eq!(first, "AAAAAAAAAAE=");
    let body = json!({"tags": {"stack": {"applicationId": "app"}}});
    let (status, twin) = world.call(Method::PATCH, "/twins/d1", "\"AAAAAAAAAAE=\"", body.clone()).await;
    assert_eq!((status, &twin["etag"], &twin["tags"]), (StatusCode::OK, &json!("AAAAAAAAAAI="), &body["tags"]));
    for (if_match, expected) in
        [("\"AAAAAAAAAAE=\"", StatusCode::PRECONDITION_FAILED), ("*", StatusCode::OK), ("", StatusCode::OK)]
    {
        assert_eq!(world.call(Method::PATCH, "/twins/d1", if_match, body.clone()).await.0, expected, "{if_match}");
    }
}

#[tokio::test]
async fn a_service_call_never_changes_reported_properties() {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    device.patch(&json!({"battery": 87})).await;
    let reported = |twin: Value| twin["properties"]["reported"].clone();
    let before = reported(world.hub.twin("d1").expect("it is there"));
    let body = json!({"tags": {"a": 1}, "properties": {"reported": {"battery": 1}, "desired": {"x": 1}}});
    for method in [Method::PATCH, Method::PUT] {
        let (status, twin) = world.call(method, "/twins/d1", "", body.clone()).await;
        assert_eq!((status, reported(twin)), (StatusCode::OK, before.clone()));
    }
}

#[tokio::test]
async fn a_bad_twin_write_is_refused_whole() {
    let world = World::start().await;
    world.create("d1").await;
    let before = world.hub.twin("d1");
    for body in [
        json!({"tags": {"fine": 1, "not fine": 2}}),
        json!({"tags": {"fine": 1}, "properties": {"desired": {"big": "x".repeat(4097)}}}),
        json!({"tags": {"a": "x".repeat(4096), "b": "x".repeat(4096)}}),
        json!([]),
    ] {
        for method in [Method::PATCH, Method::PUT] {
            let (status, error) = world.call(method, "/twins/d1", "", body.clone()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
        }
    }
    assert_eq!(world.hub.twin("d1"), before);
}

#[tokio::test]
async fn the_api_version_must_be_there_and_known() {
    let world = World::start().await;
    for query in ["", "?api-version=", "?api-version=1999-01-01"] {
        let response = world.request_with(Method::GET, "/devices", query, &token("owner")).send().await;
        let response = response.expect("the hub answers");
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn a_list_has_at_most_top_devices() {
    let world = World::start().await;
    for id in ["d1", "d2", "d3"] {
        world.create(id).await;
    }
    let query = "?top=2&api-version=2021-04-12";
    let request = world.request_with(Method::GET, "/devices", query, &token("owner"));
    let list: Vec<Value> = request.send().await.expect("the hub answers").json().await.expect("it is a list");
    assert_eq!(list.len(), 2);
}

async fn bulk(world: &World, devices: Value) -> (StatusCode, Value) {
    world.call(Method::POST, "/devices", "", devices).await
}

#[tokio::test]
async fn a_bulk_call_creates_updates_and_deletes_and_says_what_failed() {
    let world = World::start().await;
    let (status, result) = bulk(
        &world,
        json!([
            {"id": "d1", "importMode": "create", "tags": {"site": "barn"}, "properties": {"desired": {"on": true}}},
            {"id": "d2", "importMode": "create", "status": "disabled"},
        ]),
    )
    .await;
    assert_eq!((status, result), (StatusCode::OK, json!({"isSuccessful": true, "errors": [], "warnings": []})));
    let twin = world.hub.twin("d1").expect("it was created");
    assert_eq!((&twin["tags"], &twin["properties"]["desired"]["on"]), (&json!({"site": "barn"}), &json!(true)));
    assert_eq!(world.hub.twin("d2").expect("it was created")["status"], "disabled");

    let (status, result) = bulk(
        &world,
        json!([
            {"id": "d1", "importMode": "create"},
            {"id": "d2", "importMode": "UpdateIfMatchETag", "eTag": "stale"},
            {"id": "d3", "importMode": "create", "tags": {"not fine": 1}},
            {"id": "d4", "importMode": "Update"},
        ]),
    )
    .await;
    assert_eq!((status, &result["isSuccessful"]), (StatusCode::BAD_REQUEST, &json!(false)));
    let errors: Vec<_> = result["errors"].as_array().expect("it is a list").iter().collect();
    let codes: Vec<_> = errors.iter().map(|error| (error["deviceId"].as_str(), error["errorCode"].as_str())).collect();
    let expected = [
        ("d1", "DeviceAlreadyExists"),
        ("d2", "PreconditionFailed"),
        ("d3", "ArgumentInvalid"),
        ("d4", "DeviceNotFound"),
    ];
    assert_eq!(codes, expected.map(|(id, code)| (Some(id), Some(code))));
    assert_eq!(world.hub.device_ids(), ["d1", "d2"], "a twin that breaks a rule makes no device");

    let (status, _) = bulk(
        &world,
        json!([
            {"id": "d1", "importMode": "updateTwin", "tags": {"site": null}},
            {"id": "d2", "importMode": "delete"},
        ]),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.hub.twin("d1").expect("it is there").get("tags"), None);
    assert_eq!(world.hub.device_ids(), ["d1"]);
}

#[tokio::test]
async fn a_bulk_call_has_at_most_100_devices() {
    let world = World::start().await;
    let devices =
        |count: usize| (0..count).map(|n| json!({"id": format!("d{n}"), "importMode": "create"})).collect::<Value>();
    assert_eq!(bulk(&world, devices(101)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(bulk(&world, devices(100)).await.0, StatusCode::OK);
    assert_eq!(world.hub.device_ids().len(), 100);
    let response = world.request(Method::POST, "/devices", &token("service")).json(&devices(1)).send().await;
    assert_eq!(response.expect("the hub answers").status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_query_pages_through_the_twins_that_match() {
    let world = World::start().await;
    let devices = (0..5).map(|n| json!({"id": format!("d{n}"), "importMode": "create", "tags": {"n": n}}));
    bulk(&world, devices.collect()).await;
    let query = json!({"query": "SELECT * FROM devices WHERE tags.n > 0"});
    let mut found = Vec::new();
    let mut continuation: Option<String> = None;
    loop {
        let request = world.request(Method::POST, "/devices/query", &token("service")).json(&query);
        let request = request.header("x-ms-max-item-count", "3");
        let request = match &continuation {
            Some(token) => request.header("x-ms-continuation", token),
            None => request,
        };
        let response = request.send().await.expect("the hub answers");
        assert_eq!(
            (response.status(), &response.headers()["x-ms-item-type"]),
            (StatusCode::OK, &"Twin".parse().unwrap())
        );
        continuation = response.headers().get("x-ms-continuation").map(|token| token.to_str().unwrap().to_owned());
        let twins: Vec<Value> = response.json().await.expect("it is a list");
        found.push(twins.iter().filter_map(|twin| twin["deviceId"].as_str().map(str::to_owned)).collect::<Vec<_>>());
        if continuation.is_none() {
            break;
        }
    }
    assert_eq!(found, [vec!["d1", "d2", "d3"], vec!["d4"]]);
}

#[tokio::test]
async fn a_query_needs_service_connect_and_words_that_the_hub_knows() {
    let world = World::start().await;
    let ask = async |policy: &str, query: &str| {
        let request = world.request(Method::POST, "/devices/query", &token(policy)).json(&json!({"query": query}));
        let response = request.send().await.expect("the hub answers");
        (response.status(), response.headers().get("x-ms-item-type").cloned(), response.text().await.unwrap())
    };
    let count = "SELECT COUNT() AS n FROM devices";
    let (status, item_type, body) = ask("service", count).await;
    assert_eq!((status, item_type, body.as_str()), (StatusCode::OK, Some("Raw".parse().unwrap()), r#"[{"n":0}]"#));
    assert_eq!(ask("registryReadWrite", count).await.0, StatusCode::UNAUTHORIZED);
    let (status, _, body) = ask("service", "SELECT * FROM devices ORDER BY deviceId").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("ErrorCode:ArgumentInvalid;BadRequest"), "{body}");
}

#[tokio::test]
async fn a_device_may_be_called_query() {
    let world = World::start().await;
    world.create("query").await;
    let (status, device) = world.call(Method::GET, "/devices/query", "", Value::Null).await;
    assert_eq!((status, &device["deviceId"]), (StatusCode::OK, &json!("query")));
    assert_eq!(world.call(Method::POST, "/devices/other", "", json!({})).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn statistics_count_devices_and_connections() {
    let world = World::start().await;
    world.create("d1").await;
    world.call(Method::PUT, "/devices/d2", "", json!({"deviceId": "d2", "status": "disabled"})).await;
    let _device = world.device("d1").await;
    let (_, devices) = world.call(Method::GET, "/statistics/devices", "", Value::Null).await;
    assert_eq!(devices, json!({"totalDeviceCount": 2, "enabledDeviceCount": 1, "disabledDeviceCount": 1}));
    let (_, service) = world.call(Method::GET, "/statistics/service", "", Value::Null).await;
    assert_eq!(service, json!({"connectedDeviceCount": 1}));
}

#[tokio::test]
async fn a_device_with_a_certificate_is_kept_and_cannot_connect() {
    let world = World::start().await;
    for kind in ["selfSigned", "certificateAuthority"] {
        let body = json!({"deviceId": kind, "authentication": {"type": kind}, "capabilities": {"iotEdge": true}});
        let (status, device) = world.call(Method::PUT, &format!("/devices/{kind}"), "", body).await;
        assert_eq!((status, &device["authentication"]["type"]), (StatusCode::OK, &json!(kind)));
        assert_eq!(device["capabilities"], json!({"iotEdge": true}));
        assert_eq!(device["authentication"]["symmetricKey"]["primaryKey"], Value::Null);
        let (_, connack) = world.connect(connect(kind, &fleet_token())).await;
        assert_eq!(connack.code, ConnectReturnCode::NotAuthorized);
    }
}

#[tokio::test]
async fn an_integer_beyond_64_bits_is_refused_and_not_rounded() {
    let world = World::start().await;
    world.create("d1").await;
    let request = world.request(Method::PATCH, "/twins/d1", &token("service"));
    let response = request.body(r#"{"tags":{"n":99999999999999999999}}"#).send().await.expect("the hub answers");
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    let (topic, _) = device.twin("PATCH/properties/reported/?$rid=1", br#"{"n":99999999999999999999}"#).await;
    assert_eq!(topic, "$iothub/twin/res/400/?$rid=1");
}
