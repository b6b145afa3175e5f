//! What many flights share, and how many there may be.

use std::time::Duration;

use super::scripted::ScriptedHub;
use super::*;
use crate::config::Sku;
use crate::failure::Class;
use crate::iot_hub::{HubError, Share};

#[tokio::test]
async fn a_second_device_resumes_the_tls_session_of_the_first() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    for (id, resumed) in [("eui-1", false), ("eui-2", true)] {
        let flight = fly(&client, id, message("m1"));
        let mut peer = hub.welcome().await;
        assert_eq!(peer.is_resumed(), resumed, "{id}");
        let sent = peer.publishes().await;
        peer.puback(&sent[0]).await;
        assert!(is_sent(&landed(flight).await));
    }
}

#[tokio::test]
async fn what_the_tier_does_not_allow_in_time_is_not_sent() {
    let hub = ScriptedHub::start().await;
    // S1 allows 50 twin writes per second, and this share a tenth of them.
    let client = hub.client_with(|config| config.sku = Sku::S1).with_share(Share::EventHubForwarder);
    let flights: Vec<_> =
        (0..8).map(|value| fly_for(&client, "eui-1", twin(patch(value)), Duration::from_millis(300))).collect();
    let mut peer = hub.welcome().await;
    for version in 1..=5 {
        let sent = peer.publishes().await;
        peer.answer_twin(&sent[0], 204, Some(version), "").await;
    }
    let mut done = 0;
    for flight in flights {
        match landed(flight).await.twin.expect("asked for") {
            Ok(_) => done += 1,
            Err(error @ HubError::Paced { .. }) => assert_eq!(error.class(), Class::Throttled),
            // One was admitted after a fifth of a second, and this hub has not answered it.
            Err(error) => assert!(matches!(error, HubError::Timeout { .. }), "{error}"),
        }
    }
    assert_eq!(done, 5);
    assert!(peer.publishes().await.len() <= 1);
}

#[tokio::test]
async fn a_device_that_floods_is_told_to_come_again_later() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let flights: Vec<_> =
        (0..200).map(|i| fly_for(&client, "eui-1", message(&format!("m{i}")), Duration::from_millis(300))).collect();
    let mut busy = 0;
    for flight in flights {
        let error = landed(flight).await.telemetry.expect("asked for").expect_err("nobody answers");
        busy += usize::from(matches!(error, HubError::Busy { .. }));
    }
    assert!(busy > 0);
}
