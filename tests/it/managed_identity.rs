//! The handler with a managed identity, as the platform gives it: an endpoint for tokens, told by two variables.
//! The variables are of the whole process, so the handler runs as a child.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use simulator::entra::{EVENT_HUBS, Entra, IOT_HUBS};
use simulator::iot_hub::Fault;
use simulator::world::{Handler, World};
use tokio::sync::watch;

use crate::support::*;

const HEADER: &str = "a-secret-of-the-platform";
const CLIENT_ID: &str = "11111111-2222-3333-4444-555555555555";

/// The endpoint (<https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>).
#[derive(Clone)]
struct Platform {
    entra: Entra,
    /// What was asked for.
    asked: Arc<Mutex<Vec<HashMap<String, String>>>>,
    speaks: watch::Sender<bool>,
}

impl Platform {
    async fn start(entra: Entra, speaks: bool) -> (Self, String) {
        let platform = Self { entra, asked: Arc::default(), speaks: watch::Sender::new(speaks) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/msi/token", listener.local_addr().expect("bound"));
        let routes = Router::new().route("/msi/token", get(token)).with_state(platform.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (platform, url)
    }

    fn asked_for(&self, resource: &str) -> bool {
        let wanted = [("resource", resource), ("client_id", CLIENT_ID), ("api-version", "2019-08-01")];
        let asked = self.asked.lock().expect("whole");
        asked.iter().any(|query| wanted.iter().all(|(name, value)| query.get(*name).is_some_and(|had| had == value)))
    }
}

async fn token(
    State(platform): State<Platform>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    if headers.get("x-identity-header").is_none_or(|value| value != HEADER) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    platform.asked.lock().expect("whole").push(query.clone());
    platform.speaks.subscribe().wait_for(|speaks| *speaks).await.expect("the sender is ours");
    let resource = query.get("resource").ok_or(StatusCode::BAD_REQUEST)?;
    let lifetime = time::Duration::hours(1);
    let token = platform.entra.mint(resource, "bridge", lifetime).expect("a token");
    let expires_on = (time::OffsetDateTime::now_utc() + lifetime).unix_timestamp().to_string();
    Ok(Json(json!({"access_token": token, "expires_on": expires_on, "resource": resource, "token_type": "Bearer"})))
}

/// A world whose handler reaches the service API with the managed identity, and no policy could in its place.
async fn world() -> World {
    let settings = [("IOTHUB_CREDENTIAL", "managedidentity"), ("IOTHUB_CLIENT_ID", CLIENT_ID)];
    start(Handler::ByHand, &settings).await
}

fn serve(world: &World, endpoint: &str, changes: &[(&str, &str)]) -> tokio::process::Child {
    use base64::Engine as _;
    let policy = world.policy("device").expect("it exists");
    let mut settings = world.settings.clone();
    settings.insert("IOTHUB_POLICY_NAME".to_owned(), policy.name.clone());
    let key = base64::engine::general_purpose::STANDARD.encode(&policy.key);
    settings.insert("IOTHUB_POLICY_KEY".to_owned(), key);
    settings.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    tokio::process::Command::new(handler())
        .arg("serve")
        .env_clear()
        .envs(settings)
        .env("IDENTITY_ENDPOINT", endpoint)
        .env("IDENTITY_HEADER", HEADER)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the handler starts")
}

#[tokio::test]
async fn the_managed_identity_opens_the_service_api_and_event_hubs() {
    let world = world().await;
    let (platform, endpoint) = Platform::start(world.entra.clone(), true).await;
    let address = format!("amqp://{}", world.event_hubs.addr());
    let changes = [
        ("StackEvents", ""),
        ("StackEvents__fullyQualifiedNamespace", "bridge.servicebus.windows.net"),
        ("StackEvents__clientId", CLIENT_ID),
        ("EVENTHUBS_ENDPOINT", &address),
    ];
    let _child = serve(&world, &endpoint, &changes);
    assert_eq!(post(&world, &uplink("probe-0001", 1, &json!({"n": 1}))).await.outcome(), "delivered", "and created");
    assert!(platform.asked_for(IOT_HUBS), "{:?}", platform.asked);
    world.iot_hub.set_fault(Fault::Refuse);
    assert_eq!(post(&world, &uplink("probe-0001", 2, &json!({"n": 2}))).await.outcome(), "parked");
    assert!(platform.asked_for(EVENT_HUBS), "{:?}", platform.asked);
    world.iot_hub.set_fault(Fault::None);
    expect("the parked uplink delivered", || telemetry(&world).len() == 2).await;
}

#[tokio::test]
async fn u2_a_silent_identity_endpoint_holds_no_webhook_back_and_loses_nothing() {
    let world = world().await;
    let (platform, endpoint) = Platform::start(world.entra.clone(), false).await;
    let _child = serve(&world, &endpoint, &[]);
    let answer = post(&world, &uplink("probe-0001", 1, &json!({"n": 1}))).await;
    assert_eq!(answer.outcome(), "parked", "{answer:?}");
    assert!(answer.took < Duration::from_secs(4), "{answer:?}");
    let parked = &events(&world, "parked-uplinks")[0];
    let failure = text(parked.event.properties.get("firstFailure")).expect("a reason");
    assert!(failure.contains("tokens of the managed identity did not answer"), "{failure}");
    platform.speaks.send_replace(true);
    expect("the parked uplink delivered", || telemetry(&world).len() == 1).await;
}
