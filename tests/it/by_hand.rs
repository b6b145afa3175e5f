//! The handler started by hand, with nothing but the settings that the simulator writes.

use std::process::Stdio;

use serde_json::json;
use simulator::world::Handler;

use crate::support::*;

#[tokio::test]
async fn a_handler_started_by_hand_with_the_env_file_does_the_same_job() {
    let world = start(Handler::ByHand, &[]).await;
    let settings = world.env_file();
    let settings = settings.lines().filter_map(|line| line.split_once('='));
    let settings = settings.map(|(name, value)| (name, value.trim_matches('\'')));
    let mut child = tokio::process::Command::new(handler())
        .arg("serve")
        .env_clear()
        .envs(settings)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the handler starts");
    let up = uplink("probe-0001", 1, &json!({"by": "hand"}));
    let answer = post(&world, &up).await;
    assert_eq!((answer.status, answer.outcome()), (200, "delivered"), "{answer:?}");
    assert_eq!(telemetry(&world)[0].event.body, up.to_string());
    service(&world).create_device("meter-0001", &lorawan_tags(1)).await.expect("the device is made");
    expect("the device registered", || world.stack.counters().registered == 1).await;

    let pid = child.id().expect("it runs").to_string();
    let stopped = std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
    assert!(stopped.success());
    assert!(child.wait().await.expect("it ends").success(), "SIGTERM ends the handler in order");
}
