//! Bearer tokens at the service API.

use http::{Method, StatusCode};

use super::world::World;
use crate::entra::{Access, Assignment, EVENT_HUBS, Entra, IOT_HUBS, Role};
use crate::happenings::Happenings;

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

#[tokio::test]
async fn an_identity_may_do_what_its_role_allows_and_is_told_what_it_lacks() {
    let (entra, happenings) = (Entra::new(), Happenings::new());
    let role = Role::find("494bdba2-168f-4f31-a0a1-191d2f7c028c").expect("IoT Hub Twin Contributor is known");
    let assignment = Assignment { scope: "/hub".into(), role, principal: "bridge".into() };
    let access = Access::by_roles("/hub", [assignment].into(), happenings.clone());
    let world = World::start_with(|options| {
        options.entra = entra.clone();
        options.access = access;
    })
    .await;
    world.create("d1").await;
    let call = async |principal: &str, path: &str| {
        let token = entra.mint(IOT_HUBS, principal, time::Duration::hours(1)).expect("a token");
        let request = world.request(Method::GET, path, &format!("Bearer {token}"));
        let answer = request.send().await.expect("the hub answers");
        let code = answer.headers().get("iothub-errorcode").map(|code| code.to_str().expect("text").to_owned());
        (answer.status(), code, answer.text().await.expect("text"))
    };
    assert_eq!(call("bridge", "/twins/d1").await.0, StatusCode::OK);
    for (principal, reason) in [("bridge", "no permission for this data action"), ("nobody", "no assigned permissions")]
    {
        let (status, code, body) = call(principal, "/devices/d1").await;
        assert_eq!((status, code.as_deref()), (StatusCode::UNAUTHORIZED, Some("IotHubUnauthorized")), "{body}");
        let sentence =
            format!("ErrorCode:IotHubUnauthorized;Principal {principal} is not authorized for GET on /devices/d1");
        assert!(body.contains(&sentence) && body.contains(reason), "{body}");
    }
    let told = happenings.after(0).happenings;
    assert_eq!(told.len(), 2);
    assert!(told[0].title.contains("IoT Hub Registry Contributor is missing"), "{}", told[0].title);
}
