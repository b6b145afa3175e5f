//! Several instances per function.

use std::collections::BTreeSet;

use super::*;
use crate::functions_host::ScaleError;
use crate::functions_host::tests::process::start_process;

fn hub_with_partitions() -> Namespace {
    Namespace::new(&[("stack-events", 4)])
}

fn append(namespace: &Namespace, events: usize) {
    let hub = namespace.hub("stack-events").expect("it was just made");
    for number in 0..events {
        let partition_key = Some(format!("device-{number}"));
        hub.append(Event { body: format!("{{\"n\":{number}}}").into(), partition_key, ..Event::default() });
    }
}

/// Which process wrote lines about batches.
fn pids_in(lines: &[String], what: &str) -> BTreeSet<String> {
    let words = lines.iter().filter_map(|line| line.split_once(what).map(|(_, pid)| pid.trim().to_owned()));
    words.collect()
}

#[tokio::test]
async fn partitions_are_divided_among_the_instances_and_calls_go_round() {
    let app = AppFolder::new(host_json("00:00:30", &process::AS_HANDLER), &[uplink(), forwarder(-1)]);
    let namespace = hub_with_partitions();
    let host = start_process(&app, &namespace).await;
    host.scale("EventHubForwarder", 2).await.expect("it can be scaled");
    host.scale("UplinkIngress", 3).await.expect("it can be scaled");
    assert!(host.wait_ready().await);
    let (batches, calls) = (host.handler_pids("EventHubForwarder"), host.handler_pids("UplinkIngress"));
    let common = host.handler_pid();
    let all: BTreeSet<_> = batches.iter().chain(&calls).chain(&common).collect();
    assert_eq!((batches.len(), calls.len(), all.len()), (2, 3, 6), "every instance has its own process");

    append(&namespace, 40);
    for _ in 0..6 {
        let call = reqwest::Client::new().post(format!("{}/uplink", host.base_url())).header("x-functions-key", "key");
        assert_eq!(call.send().await.expect("the host answers").status(), StatusCode::OK);
    }
    assert!(host.wait_idle(PATIENCE).await);
    let names = |pids: &[u32]| pids.iter().map(u32::to_string).collect::<BTreeSet<_>>();
    assert_eq!(pids_in(&host.handler_log(), "batch in "), names(&batches));
    assert_eq!(pids_in(&host.handler_log(), "call in "), names(&calls));
    assert_eq!(host.counters().events_delivered, 40);

    host.scale("UplinkIngress", 1).await.expect("it can be scaled");
    assert_eq!(host.handler_pids("UplinkIngress"), calls[..1]);
    let ended = async {
        while calls[1..].iter().any(|pid| is_alive(*pid)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("idle instances end at once");
}

#[tokio::test]
async fn a_batch_of_a_lost_instance_goes_to_another() {
    let app = AppFolder::new(host_json("00:00:30", &process::AS_HANDLER), &[forwarder(-1)]);
    let namespace = Namespace::new(&[("stack-events", 1)]);
    let host = start_process(&app, &namespace).await;
    host.scale("EventHubForwarder", 2).await.expect("it can be scaled");
    assert!(host.wait_ready().await);
    let hub = namespace.hub("stack-events").expect("it was just made");
    hub.append(Event { body: "\"hang once\"".into(), ..Event::default() });
    let begun = async {
        while pids_in(&host.handler_log(), "batch in ").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("the batch is delivered");
    assert_eq!(host.lag("stack-events", "forwarder"), 1);
    assert!(host.lose_instance_of("EventHubForwarder", 0));
    assert!(host.wait_idle(PATIENCE).await);
    assert_eq!(pids_in(&host.handler_log(), "batch in ").len(), 2, "two processes got it");
    assert_eq!(host.counters().events_delivered, 1);
    assert!(!host.lose_instance_of("EventHubForwarder", 2) && !host.lose_instance_of("Nobody", 0));
}

#[tokio::test]
async fn what_cannot_be_scaled_is_refused() {
    let app = AppFolder::new(host_json("00:00:30", &[]), &[uplink()]);
    let script = Script::default();
    let mut options = options(&app, &Namespace::new(&[]));
    options.external_port = Some(script.serve().await);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(matches!(host.scale("Nobody", 1).await, Err(ScaleError::Unknown(_))));
    assert!(matches!(host.scale("UplinkIngress", 2).await, Err(ScaleError::ByHand)));
    let host = start_process(&app, &Namespace::new(&[])).await;
    for number in [0, 101] {
        assert!(matches!(host.scale("UplinkIngress", number).await, Err(ScaleError::Number(_))));
    }
    host.shutdown().await;
    assert!(matches!(host.scale("UplinkIngress", 1).await, Err(ScaleError::Stopped)));
}
