//! Bearer tokens at the service API.

use http::{Method, StatusCode};

use super::world::World;
use crate::entra::{EVENT_HUBS, Entra, IOT_HUBS};

#[tokio::test]
async fn a_bearer_token_for_the_hub_opens_the_service_api_and_no_other_does() {
    let entra = Entra::new();
    let world = World::start_with(|options| options.entra = entra.clone()).await;
    world.create("d1").await;
    let status = async |issuer: &Entra, audience: &str, seconds: i64| {
        let token = issuer.mint(audience, "operator", time::Duration::seconds(seconds)).expect("a token");
        let request = world.request(Method::GET, "/twins/d1", &format!("Bearer {token}"));
        request.send().await.expect("the hub answers").status()
    };
    assert_eq!(status(&entra, IOT_HUBS, 60).await, StatusCode::OK);
    assert_eq!(status(&entra, EVENT_HUBS, 60).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&entra, IOT_HUBS, -60).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&Entra::new(), IOT_HUBS, 60).await, StatusCode::UNAUTHORIZED);
}
