//! The opening of a connection.
//!
//! ANONYMOUS and MSSBCBS leave it to `$cbs` who the client is: the first is what Microsoft's newer libraries choose, the second
//! what `uamqp` does (`Azure/azure-uamqp-python uamqp/authentication/cbs_auth.py`). PLAIN carries a policy
//! (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-amqp-support.md`).

use std::sync::Arc;

use fe2o3_amqp::acceptor::sasl_acceptor::{SaslAcceptor, SaslServerFrame};
use fe2o3_amqp_types::primitives::{Array, Symbol};
use fe2o3_amqp_types::sasl::{SaslCode, SaslInit, SaslOutcome, SaslResponse};

use super::grants::Grants;
use super::service::{Credentials, Service};

const CBS: &str = "MSSBCBS";
const PLAIN: &str = "PLAIN";
const ANONYMOUS: &str = "ANONYMOUS";

/// The opening of one connection.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) services: Arc<[Arc<dyn Service>]>,
    pub(super) grants: Arc<Grants>,
}

impl Opening {
    /// `[authorisation id] NUL user NUL password` (RFC 4616).
    fn plain(&self, response: &[u8]) -> bool {
        let mut parts = response.split(|byte| *byte == 0).map(std::str::from_utf8);
        let (Some(Ok(_)), Some(Ok(user)), Some(Ok(password)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let credentials = Credentials::Plain { user, password };
        let grant = self.services.iter().find_map(|service| service.check(&credentials).ok());
        grant.is_some_and(|grant| self.grants.add(grant).is_ok())
    }
}

impl SaslAcceptor for Opening {
    fn mechanisms(&self) -> Array<Symbol> {
        Array::from([CBS, PLAIN, ANONYMOUS].map(Symbol::from).to_vec())
    }

    fn on_init(&mut self, init: SaslInit) -> SaslServerFrame {
        let let_in = match init.mechanism.as_str() {
            CBS | ANONYMOUS => true,
            PLAIN => init.initial_response.is_some_and(|response| self.plain(&response)),
            _ => false,
        };
        outcome(if let_in { SaslCode::Ok } else { SaslCode::Auth })
    }

    fn on_response(&mut self, _response: SaslResponse) -> SaslServerFrame {
        // None of the mechanisms has a challenge.
        outcome(SaslCode::Sys)
    }
}

fn outcome(code: SaslCode) -> SaslServerFrame {
    SaslServerFrame::Outcome(SaslOutcome { code, additional_data: None })
}
