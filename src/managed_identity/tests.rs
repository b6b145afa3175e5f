//! The platform slow, down and refusing.

use std::sync::atomic::{AtomicUsize, Ordering};

use azure_core::http::{RawResponse, StatusCode, headers::Headers};
use tokio::time::{advance, sleep};

use super::*;
use crate::failure::Class;

const SCOPE: &str = "https://iothubs.azure.net/.default";

/// A platform whose answers are told beforehand; the last one stays.
#[derive(Debug)]
struct Platform {
    asked: AtomicUsize,
    /// Delay of the answer, and the seconds that the token has left or the status of a refusal.
    answers: Vec<(Duration, Result<i64, u16>)>,
}

impl Platform {
    fn new(answers: &[(u64, Result<i64, u16>)]) -> Arc<Self> {
        let answers = answers.iter().map(|(delay, answer)| (Duration::from_millis(*delay), *answer)).collect();
        Arc::new(Self { asked: AtomicUsize::new(0), answers })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn refusal(status: u16) -> azure_core::Error {
    let status = StatusCode::from(status);
    let raw_response = Some(Box::new(RawResponse::from_bytes(status, Headers::new(), "")));
    let inner =
        azure_core::Error::new(ErrorKind::HttpResponse { error_code: None, raw_response, status }, "not assigned");
    azure_core::Error::with_error(ErrorKind::Credential, inner, "failed\nTo troubleshoot, visit https://aka.ms/x")
}

#[async_trait::async_trait]
impl TokenCredential for Platform {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, [SCOPE]);
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        let (delay, answer) = self.answers[turn.min(self.answers.len() - 1)];
        sleep(delay).await;
        let left = answer.map_err(refusal)?;
        Ok(AccessToken::new(format!("token-{turn}"), OffsetDateTime::now_utc() + time::Duration::seconds(left)))
    }
}

fn text(token: Result<AccessToken, IdentityError>) -> String {
    token.expect("a token").token.secret().to_owned()
}

/// Lets the tasks that can run do so.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_fetched_at_start_and_kept() {
    let platform = Platform::new(&[(0, Ok(3600))]);
    let identity = ManagedIdentity::with_source(platform.clone(), SCOPE);
    settle().await;
    assert_eq!(platform.asked(), 1, "before anyone needs it");
    for _ in 0..3 {
        assert_eq!(text(identity.token().await), "token-0");
    }
    assert_eq!(platform.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_near_its_end_serves_while_the_next_is_fetched() {
    let platform = Platform::new(&[(0, Ok(240)), (8000, Ok(3600))]);
    let identity = ManagedIdentity::with_source(platform.clone(), SCOPE);
    settle().await;
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(text(identity.token().await), "token-0");
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits");
    settle().await;
    assert_eq!(platform.asked(), 2, "one fetch at a time");
    advance(Duration::from_secs(8)).await;
    settle().await;
    assert_eq!(text(identity.token().await), "token-1");
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_is_down_leaves_a_good_token_in_use_and_is_not_stormed() {
    let platform = Platform::new(&[(0, Ok(240)), (0, Err(500))]);
    let identity = ManagedIdentity::with_source(platform.clone(), SCOPE);
    settle().await;
    for _ in 0..10 {
        assert_eq!(text(identity.token().await), "token-0");
        settle().await;
    }
    assert_eq!(platform.asked(), 2);
    advance(FAILURE_PAUSE).await;
    identity.token().await.expect("still good");
    settle().await;
    assert_eq!(platform.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_platform_holds_nobody_longer_than_a_webhook_can_wait_and_a_late_answer_serves_the_next() {
    let platform = Platform::new(&[(5000, Ok(3600))]);
    let identity = ManagedIdentity::with_source(platform.clone(), SCOPE);
    let began = Instant::now();
    let error = identity.token().await.expect_err("silence");
    assert_eq!((began.elapsed(), error.class()), (PATIENCE, Class::Retry), "{error}");
    assert!(error.to_string().contains("IDENTITY_ENDPOINT is not set"), "{error}");
    sleep(Duration::from_secs(4)).await;
    assert_eq!(text(identity.token().await), "token-0");
    assert_eq!(platform.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_never_answers_is_asked_again() {
    let platform = Platform::new(&[(3_600_000, Ok(3600)), (0, Ok(3600))]);
    let identity = ManagedIdentity::with_source(platform.clone(), SCOPE);
    sleep(FETCH_LIMIT + FAILURE_PAUSE).await;
    assert_eq!(text(identity.token().await), "token-1");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_at_once_and_names_the_remedy() {
    for (status, class) in [(400, Class::Denied), (403, Class::Denied), (429, Class::Retry), (500, Class::Retry)] {
        let identity = ManagedIdentity::with_source(Platform::new(&[(0, Err(status))]), SCOPE);
        let error = identity.token().await.expect_err("refused");
        assert_eq!(error.class(), class, "{error}");
        let text = error.to_string();
        assert!(text.contains("not assigned") && !text.contains("troubleshoot"), "{text}");
        assert_eq!(class == Class::Denied, text.contains("assign the identity to the app"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_given_for_its_own_scope_only_and_never_shown() {
    let identity = ManagedIdentity::with_source(Platform::new(&[(0, Ok(3600))]), SCOPE);
    identity.get_token(&["https://eventhubs.azure.net/.default"], None).await.expect_err("another service");
    let token = identity.get_token(&[SCOPE], None).await.expect("a token");
    assert!(!format!("{identity:?} {token:?}").contains("token-0"));
}
