//! Who may operate: certificates of operators, made and revoked.

use std::sync::Arc;

use proto::admin::OperatorStatus;
use proto::ids::{Serial, Timestamp};
use proto::message::Rejection;
use proto::role::Role;

use super::{CLOCK_SLACK_SECS, Registry, certificate, unavailable};
use crate::operators::OperatorsError;
use crate::peer::{AdminName, AdminNameError};
use crate::pki::Validity;
use crate::revocations::Revoked;

impl Registry {
    /// Vouches for a new key of an operator, in the role that they have: the certificate and its authority's, in PEM.
    pub async fn sign_operator(
        self: Arc<Self>,
        (name, role): (AdminName, Role),
        request_pem: String,
        now: Timestamp,
    ) -> Result<String, Rejection> {
        let validity = self.operators_validity(now);
        self.apart(move |registry| {
            let signed = registry.operators.sign(&request_pem, (&name, role), &registry.authority, validity);
            let signed = signed.map_err(|error| registry.operators_failed(error))?;
            tracing::info!(%name, %role, "operator's certificate made anew");
            Ok(signed)
        })
        .await
    }

    /// Makes somebody an operator: the certificate and its authority's, in PEM.
    pub async fn add_operator(
        self: Arc<Self>,
        (name, role): (String, Role),
        request_pem: String,
        now: Timestamp,
    ) -> Result<String, Rejection> {
        let refuse = |why: String| Rejection::Unacceptable { request: "add operator".into(), why };
        let name: AdminName = name.parse().map_err(|error: AdminNameError| refuse(error.to_string()))?;
        let validity = self.operators_validity(now);
        self.apart(move |registry| {
            let at = (&registry.authority, validity, now.as_secs());
            let signed = registry.operators.add(&request_pem, (&name, role), at.0, at.1, at.2);
            let signed = signed.map_err(|error| registry.operators_failed(error))?;
            tracing::info!(%name, %role, "operator added");
            Ok(signed)
        })
        .await
    }

    fn operators_validity(&self, now: Timestamp) -> Validity {
        Validity {
            not_before_unix_secs: now.as_secs().saturating_sub(CLOCK_SLACK_SECS),
            not_after_unix_secs: now.as_secs() + self.operator_secs,
        }
    }

    /// Makes an operator's certificate worthless, for ever. Fails where nobody would be left who can make another.
    pub async fn revoke_operator(self: Arc<Self>, serial: Serial, now: Timestamp) -> Result<(), Rejection> {
        self.apart(move |registry| {
            let failed = |error| registry.operators_failed(error);
            let known = registry.operators.list().map_err(failed)?;
            if !known.iter().any(|operator| operator.serial == serial) {
                let why =
                    "no certificate of an operator has this number; `nightshift operator ls` lists them"
                        .to_owned();
                return Err(Rejection::Unacceptable { request: "revoke operator".into(), why });
            }
            let _change = registry.operators.change();
            registry.operators.check_not_last(serial, now.as_secs()).map_err(failed)?;
            registry.revocations.add(Revoked::Operator(serial)).map_err(|error| unavailable(&error))?;
            registry.operators.revoke(serial).map_err(failed)?;
            tracing::info!(%serial, "operator's certificate revoked");
            Ok(())
        })
        .await
    }

    /// All certificates of operators.
    pub async fn list_operators(self: Arc<Self>) -> Result<Vec<OperatorStatus>, Rejection> {
        self.apart(|registry| registry.operators.list().map_err(|error| registry.operators_failed(error)))
            .await
    }

    /// Whether a certificate was made for this name.
    pub fn is_operators_own(&self, serial: Serial, name: &AdminName) -> Result<bool, Rejection> {
        self.operators.is_named(serial, name).map_err(|error| self.operators_failed(error))
    }

    fn operators_failed(&self, error: OperatorsError) -> Rejection {
        match error {
            OperatorsError::Store(error) => self.store(error),
            OperatorsError::Pki(error) => certificate(error),
            error @ (OperatorsError::Record(_) | OperatorsError::Unreadable) => {
                Rejection::Unavailable(error.to_string())
            }
            error @ OperatorsError::NameTaken { .. } => {
                Rejection::Unacceptable { request: "add operator".into(), why: error.to_string() }
            }
            error @ OperatorsError::LastAdmin(_) => {
                Rejection::Unacceptable { request: "revoke operator".into(), why: error.to_string() }
            }
        }
    }
}
