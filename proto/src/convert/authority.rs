//! What passes between an enrollment authority and whoever asks it.

use aggregation::IdentityPublic;

use super::admin::{log_status_from_wire, log_status_to_wire, token_from_wire, token_to_wire};
use super::{
    WireError, credential_from_wire, credential_to_wire, enroll_request_from_wire, enroll_request_to_wire,
    error, fixed, log_part_from_wire, log_part_to_wire, present, renew_request_from_wire,
    renew_request_to_wire,
};
use crate::authority::{
    AuthorityReply, AuthorityRequest, Introduced, Introduction, Issued, IssuedDevice, MOST_LISTED,
};
use crate::ids::{DeviceId, TokenId};
use crate::wire::{self, authority_reply, authority_request};

/// Encodes a request to an enrollment authority.
pub fn authority_request_to_wire(request: AuthorityRequest) -> wire::AuthorityRequest {
    use authority_request::Kind;
    let revoke = |device: DeviceId| wire::RevokeDevice { device: device.0.to_vec() };
    let kind = match request {
        AuthorityRequest::Enroll(enrollment) => Kind::Enroll(enroll_request_to_wire(&enrollment)),
        AuthorityRequest::Renew(renewal) => Kind::Renew(renew_request_to_wire(&renewal)),
        AuthorityRequest::ReportRevoked(device) => Kind::ReportRevoked(revoke(device)),
        AuthorityRequest::Introduce(Introduction { address, pin, revocations_from }) => {
            Kind::Introduce(wire::Introduce { address, pin: pin.to_vec(), revocations_from })
        }
        AuthorityRequest::ReadLog { from } => Kind::ReadLog(wire::ReadLogRequest { from }),
        AuthorityRequest::ShowLog => Kind::ShowLog(wire::ShowLog {}),
        AuthorityRequest::LogVersion(entry) => Kind::LogVersion(wire::LogVersion { entry }),
        AuthorityRequest::IssueToken { label, lifetime_secs, coordinator } => {
            Kind::IssueToken(wire::IssueAuthorityToken { label, lifetime_secs, coordinator })
        }
        AuthorityRequest::ListTokens => Kind::ListTokens(wire::ListTokens {}),
        AuthorityRequest::RevokeToken(token) => {
            Kind::RevokeToken(wire::RevokeToken { token: token.0.to_vec() })
        }
        AuthorityRequest::ListIssued { after } => Kind::ListIssued(wire::ListIssued {
            after: after.map_or_else(Vec::new, |device| device.0.to_vec()),
        }),
        AuthorityRequest::RevokeDevice(device) => Kind::RevokeDevice(revoke(device)),
        AuthorityRequest::AddCoordinator { name, certificate_request_pem } => {
            Kind::AddCoordinator(wire::AddCoordinator { name, certificate_request_pem })
        }
    };
    wire::AuthorityRequest { kind: Some(kind) }
}

/// Decodes a request to an enrollment authority.
pub fn authority_request_from_wire(message: wire::AuthorityRequest) -> Result<AuthorityRequest, WireError> {
    use authority_request::Kind;
    let device = |message: &wire::RevokeDevice| Ok(DeviceId(fixed("device", &message.device)?));
    Ok(match present("authority request", message.kind)? {
        Kind::Enroll(enrollment) => AuthorityRequest::Enroll(Box::new(enroll_request_from_wire(enrollment)?)),
        Kind::Renew(renewal) => AuthorityRequest::Renew(renew_request_from_wire(renewal)?),
        Kind::ReportRevoked(revoked) => AuthorityRequest::ReportRevoked(device(&revoked)?),
        Kind::Introduce(wire::Introduce { address, pin, revocations_from }) => {
            let pin = fixed("pin", &pin)?;
            AuthorityRequest::Introduce(Introduction { address, pin, revocations_from })
        }
        Kind::ReadLog(wire::ReadLogRequest { from }) => AuthorityRequest::ReadLog { from },
        Kind::ShowLog(wire::ShowLog {}) => AuthorityRequest::ShowLog,
        Kind::LogVersion(wire::LogVersion { entry }) => AuthorityRequest::LogVersion(entry),
        Kind::IssueToken(wire::IssueAuthorityToken { label, lifetime_secs, coordinator }) => {
            AuthorityRequest::IssueToken { label, lifetime_secs, coordinator }
        }
        Kind::ListTokens(wire::ListTokens {}) => AuthorityRequest::ListTokens,
        Kind::RevokeToken(wire::RevokeToken { token }) => {
            AuthorityRequest::RevokeToken(TokenId(fixed("token", &token)?))
        }
        Kind::ListIssued(wire::ListIssued { after }) => {
            let after = if after.is_empty() { None } else { Some(DeviceId(fixed("device", &after)?)) };
            AuthorityRequest::ListIssued { after }
        }
        Kind::RevokeDevice(revoked) => AuthorityRequest::RevokeDevice(device(&revoked)?),
        Kind::AddCoordinator(wire::AddCoordinator { name, certificate_request_pem }) => {
            AuthorityRequest::AddCoordinator { name, certificate_request_pem }
        }
    })
}

/// Encodes an enrollment authority's answer.
pub fn authority_reply_to_wire(reply: AuthorityReply) -> wire::AuthorityReply {
    use authority_reply::Kind;
    let kind = match reply {
        AuthorityReply::Issued(Issued { credential, issued_unix_secs, label }) => {
            Kind::Issued(wire::Issued {
                credential: Some(credential_to_wire(&credential)),
                issued_unix_secs,
                label,
            })
        }
        AuthorityReply::Introduced(Introduced { authority, revoked, revocations_next, more }) => {
            Kind::Introduced(wire::Introduced {
                authority: authority.0.to_vec(),
                revoked: revoked.iter().map(|device| device.0.to_vec()).collect(),
                revocations_next,
                more,
            })
        }
        AuthorityReply::Done => Kind::Done(wire::Received {}),
        AuthorityReply::Log(part) => Kind::Log(log_part_to_wire(part)),
        AuthorityReply::LogStatus(log) => Kind::LogStatus(log_status_to_wire(log)),
        AuthorityReply::Token(text) => Kind::Token(wire::Token { text }),
        AuthorityReply::TokenList(tokens) => {
            Kind::TokenList(wire::TokenList { tokens: tokens.into_iter().map(token_to_wire).collect() })
        }
        AuthorityReply::Devices { devices, more } => Kind::Devices(wire::IssuedList {
            devices: devices.into_iter().map(device_to_wire).collect(),
            more,
        }),
        AuthorityReply::Certificate(pem) => Kind::Certificate(wire::Certificate { pem }),
    };
    wire::AuthorityReply { kind: Some(kind) }
}

/// Decodes an enrollment authority's answer.
pub fn authority_reply_from_wire(message: wire::AuthorityReply) -> Result<AuthorityReply, WireError> {
    use authority_reply::Kind;
    Ok(match present("authority reply", message.kind)? {
        Kind::Issued(wire::Issued { credential, issued_unix_secs, label }) => {
            AuthorityReply::Issued(Issued {
                credential: credential_from_wire(present("credential", credential.as_ref())?)?,
                issued_unix_secs,
                label,
            })
        }
        Kind::Introduced(wire::Introduced { authority, revoked, revocations_next, more }) => {
            at_most_listed(revoked.len())?;
            let device = |device: &Vec<u8>| Ok(DeviceId(fixed("device", device)?));
            AuthorityReply::Introduced(Introduced {
                authority: IdentityPublic(fixed("authority", &authority)?),
                revoked: revoked.iter().map(device).collect::<Result<_, WireError>>()?,
                revocations_next,
                more,
            })
        }
        Kind::Done(wire::Received {}) => AuthorityReply::Done,
        Kind::Log(part) => AuthorityReply::Log(log_part_from_wire(part)),
        Kind::LogStatus(log) => AuthorityReply::LogStatus(log_status_from_wire(log)),
        Kind::Token(wire::Token { text }) => AuthorityReply::Token(text),
        Kind::TokenList(list) => {
            let tokens = list.tokens.into_iter().map(token_from_wire).collect::<Result<_, _>>()?;
            AuthorityReply::TokenList(tokens)
        }
        Kind::Devices(wire::IssuedList { devices, more }) => {
            at_most_listed(devices.len())?;
            let devices = devices.into_iter().map(device_from_wire).collect::<Result<_, _>>()?;
            AuthorityReply::Devices { devices, more }
        }
        Kind::Certificate(wire::Certificate { pem }) => AuthorityReply::Certificate(pem),
    })
}

fn at_most_listed(found: usize) -> Result<(), WireError> {
    if found > MOST_LISTED {
        return Err(error("list of devices", format!("{found} are more than {MOST_LISTED}")));
    }
    Ok(())
}

fn device_to_wire(device: IssuedDevice) -> wire::IssuedDevice {
    wire::IssuedDevice {
        device: device.device.0.to_vec(),
        label: device.label,
        identity: device.identity.0.to_vec(),
        enrolled_unix_secs: device.enrolled_unix_secs,
        expires_unix_secs: device.expires_unix_secs,
        revoked_unix_secs: device.revoked_unix_secs,
    }
}

fn device_from_wire(message: wire::IssuedDevice) -> Result<IssuedDevice, WireError> {
    Ok(IssuedDevice {
        device: DeviceId(fixed("device", &message.device)?),
        label: message.label,
        identity: IdentityPublic(fixed("identity key", &message.identity)?),
        enrolled_unix_secs: message.enrolled_unix_secs,
        expires_unix_secs: message.expires_unix_secs,
        revoked_unix_secs: message.revoked_unix_secs,
    })
}

#[cfg(test)]
mod tests {
    use aggregation::{Credential, IdentityKey};

    use super::*;
    use crate::admin::TokenStatus;
    use crate::convert::{Enrollment, Renewal};

    #[test]
    fn every_request_is_read_back() {
        let (token, identity) = (IdentityKey::from_seed(&[1; 32]), IdentityKey::from_seed(&[2; 32]));
        let device = DeviceId([3; 16]);
        let requests = [
            AuthorityRequest::Enroll(Box::new(Enrollment::new(&token, "request".into(), &identity))),
            AuthorityRequest::Renew(Renewal::new(device, "request".into(), &identity)),
            AuthorityRequest::ReportRevoked(device),
            AuthorityRequest::Introduce(Introduction {
                address: "a:1".into(),
                pin: [4; 32],
                revocations_from: 5,
            }),
            AuthorityRequest::IssueToken { label: "l".into(), lifetime_secs: 6, coordinator: "c".into() },
            AuthorityRequest::ListTokens,
            AuthorityRequest::RevokeToken(TokenId([7; 8])),
            AuthorityRequest::ListIssued { after: None },
            AuthorityRequest::ListIssued { after: Some(device) },
            AuthorityRequest::RevokeDevice(device),
            AuthorityRequest::AddCoordinator { name: "c".into(), certificate_request_pem: "r".into() },
        ];
        for request in requests {
            let read = authority_request_from_wire(authority_request_to_wire(request.clone()));
            assert_eq!(read, Ok(request));
        }
    }

    #[test]
    fn every_reply_is_read_back() {
        let authority = IdentityKey::from_seed(&[1; 32]);
        let device = DeviceId([3; 16]);
        let identity = IdentityKey::from_seed(&[2; 32]).public();
        let replies = [
            AuthorityReply::Issued(Issued {
                credential: Credential::issue(&authority, device.0, identity, 9),
                issued_unix_secs: 8,
                label: "l".into(),
            }),
            AuthorityReply::Introduced(Introduced {
                authority: authority.public(),
                revoked: vec![device],
                revocations_next: 1,
                more: true,
            }),
            AuthorityReply::Done,
            AuthorityReply::Token("t".into()),
            AuthorityReply::TokenList(vec![TokenStatus {
                token: TokenId([7; 8]),
                label: "l".into(),
                issued_unix_secs: 1,
                expires_unix_secs: 2,
                redeemed_unix_secs: Some(3),
                revoked_unix_secs: None,
            }]),
            AuthorityReply::Devices {
                devices: vec![IssuedDevice {
                    device,
                    label: "l".into(),
                    identity,
                    enrolled_unix_secs: 1,
                    expires_unix_secs: 2,
                    revoked_unix_secs: Some(3),
                }],
                more: false,
            },
            AuthorityReply::Certificate("pem".into()),
        ];
        for reply in replies {
            assert_eq!(authority_reply_from_wire(authority_reply_to_wire(reply.clone())), Ok(reply));
        }
    }
}
