//! What a sender is told whose request is at fault. None of it is lost silently, none of it ends the process.

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn a_request_at_fault_gets_its_status_and_a_sentence_and_creates_nothing() {
    let world = world().await;
    let good = uplink("probe-0001", 1, &json!({"n": 1})).to_string();
    let mut stranger = uplink("probe-0001", 1, &json!({"n": 1}));
    stranger["end_device_ids"]["application_ids"]["application_id"] = "someone-else".into();
    let set = |name: &'static str, value: &'static str| {
        move |request: reqwest::RequestBuilder| {
            let mut request = request.build().expect("a request");
            request.headers_mut().insert(name, value.parse().expect("a value"));
            reqwest::RequestBuilder::from_parts(reqwest::Client::new(), request)
        }
    };
    let same = |request: reqwest::RequestBuilder| request;

    let cases: Vec<(&str, Answer, u16, &str)> = vec![
        ("malformed", post_with(&world, "{not json", same).await, 400, "json"),
        ("empty", post_with(&world, "", same).await, 400, "json"),
        ("not an object", post_with(&world, "[1]", same).await, 400, "object"),
        ("nested without end", post_with(&world, "[".repeat(100_000), same).await, 400, "json"),
        (
            "wrong secret",
            post_with(&world, good.clone(), set("X-Webhook-Secret", "wrong")).await,
            401,
            "X-Webhook-Secret",
        ),
        ("another application", post(&world, &stranger).await, 403, "application"),
        ("2 MiB", post_with(&world, vec![b' '; 2 * 1024 * 1024], same).await, 413, "bytes"),
        (
            "protobuf",
            post_with(&world, good.clone(), set("Content-Type", "application/octet-stream")).await,
            415,
            "JSON",
        ),
    ];
    for (name, answer, status, word) in cases {
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        let sentence = answer.body["error"].as_str().unwrap_or_default();
        assert!(sentence.to_lowercase().contains(&word.to_lowercase()), "{name}: {answer:?}");
        assert!(sentence.len() > 20, "{name}: {answer:?}");
    }
    assert!(world.iot_hub.device_ids().is_empty());
    assert!(telemetry(&world).is_empty());
    assert_eq!(post(&world, &uplink("probe-0001", 1, &json!({"n": 1}))).await.outcome(), "delivered");
    assert_eq!(world.functions.counters().restarts, 0);
}

#[tokio::test]
async fn a_message_type_of_tomorrow_is_answered_2xx_and_counted() {
    let world = world().await;
    let mut up = uplink("probe-0001", 1, &json!({}));
    let message = up["uplink_message"].take();
    let fields = up.as_object_mut().expect("an object");
    fields.remove("uplink_message");
    fields.insert("uplink_of_tomorrow".to_owned(), message);
    let answer = post(&world, &up).await;
    assert_eq!((answer.status, answer.outcome()), (200, "ignored"), "{answer:?}");
    assert!(world.iot_hub.device_ids().is_empty());
}

#[tokio::test]
async fn the_route_is_taken_with_and_without_device_id_and_trailing_slash() {
    let world = world().await;
    let (url, headers) = world.webhook();
    for (number, suffix) in ["", "/", "/probe-0001", "/probe-0001/"].iter().enumerate() {
        let mut up = uplink("probe-0001", number as u32 + 5, &json!({"n": number}));
        if suffix.contains("probe") {
            // A field mask can leave the ids out; then the URL names the device.
            up.as_object_mut().expect("an object").remove("end_device_ids");
        }
        let mut request = reqwest::Client::new().post(format!("{url}{suffix}")).json(&up);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200, "{suffix}");
        assert_eq!(answer.json::<Value>().await.expect("JSON")["outcome"], "delivered", "{suffix}");
    }
    assert_eq!(telemetry(&world).len(), 4);
    assert_eq!(world.iot_hub.device_ids(), ["probe-0001"]);
}

#[tokio::test]
async fn without_a_function_key_nothing_reaches_the_handler() {
    let world = world().await;
    let answer = reqwest::Client::new().post(world.webhook().0).body("{}").send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 401);
}
