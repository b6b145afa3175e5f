//! Promise S1.

use serde_json::json;
use simulator::iot_hub::Fault;

use crate::support::*;

#[tokio::test]
async fn s1_no_secret_and_no_root_key_is_logged_at_any_level_or_kept_in_tags_or_dead_letters() {
    expect_no_secret("text").await;
}

#[tokio::test]
async fn s1_no_secret_and_no_root_key_is_in_a_record_written_as_json() {
    expect_no_secret("json").await;
}

async fn expect_no_secret(log_format: &str) {
    let world = world_with(&[("LOG_LEVEL", "trace"), ("LOG_FORMAT", log_format)]).await;
    // A registration that works, one that never can, an uplink delivered, one parked, one refused, one with a session key.
    service(&world).create_device("meter-0001", &lorawan_tags(1)).await.expect("made");
    let mut poison = lorawan_tags(2);
    poison["lorawan"]["devEui"] = "no EUI".into();
    service(&world).create_device("meter-0002", &poison).await.expect("made");
    let session_key = "5E551011112233445566778899AABBCC";
    let mut up = uplink("probe-0001", 1, &json!({"n": 1}));
    up["uplink_message"]["app_s_key"] = json!({"key": session_key});
    assert_eq!(post(&world, &up).await.outcome(), "delivered");
    let mut parked = uplink("probe-0001", 2, &json!({"n": 2}));
    parked["uplink_message"]["app_s_key"] = json!({"key": session_key});
    world.iot_hub.set_fault(Fault::Refuse);
    assert_eq!(post(&world, &parked).await.outcome(), "parked");
    world.iot_hub.set_fault(Fault::None);
    expect("the registration told", || {
        twin(&world, "meter-0001")["tags"]["stack"]["registration"]["state"] == "registered"
    })
    .await;
    expect("the dead letter", || !events(&world, "dead-letters").is_empty()).await;
    expect("the parked uplink delivered", || telemetry(&world).len() == 2).await;
    assert!(world.functions.wait_idle(PATIENCE).await);

    assert!(twin(&world, "meter-0001")["tags"]["lorawan"]["appKey"].is_null());
    for event in ["dead-letters", "iothub-ehub-sim", "parked-uplinks"].iter().flat_map(|hub| events(&world, hub)) {
        let body = String::from_utf8_lossy(&event.event.body).to_uppercase();
        assert!(!body.contains(ROOT_KEY) && !body.contains(session_key), "{body}");
    }
    let (_, [(_, function_key), (_, webhook_secret)]) = world.webhook();
    let mut secrets = vec![ROOT_KEY, session_key, function_key, webhook_secret, "SharedAccessSignature sr="];
    secrets.extend([world.settings["STACK_API_KEY"].as_str(), world.settings["IOTHUB_POLICY_KEY"].as_str()]);
    let event_hubs = world.settings["StackEvents"].clone();
    let event_hubs_key = event_hubs.split("SharedAccessKey=").nth(1).and_then(|rest| rest.split(';').next());
    secrets.push(event_hubs_key.expect("a key"));
    let log = world.functions.handler_log();
    assert!(log.len() > 20, "the handler logs at trace: {log:?}");
    for line in log {
        for secret in &secrets {
            assert!(!line.contains(secret), "{secret} in {line}");
        }
    }
    let told = world.happenings.after(0).happenings;
    assert!(told.len() > 10, "the simulator tells what happens: {told:?}");
    for happening in told {
        let text = format!("{happening:?}");
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[tokio::test]
async fn s1_root_keys_stay_where_the_operator_wants_them() {
    let world = world_with(&[("KEEP_ROOT_KEYS", "true")]).await;
    service(&world).create_device("meter-0001", &lorawan_tags(1)).await.expect("made");
    expect("the registration told", || {
        twin(&world, "meter-0001")["tags"]["stack"]["registration"]["state"] == "registered"
    })
    .await;
    assert_eq!(twin(&world, "meter-0001")["tags"]["lorawan"]["appKey"], ROOT_KEY);
}
