//! Which request needs which role.
//!
//! | role | may |
//! | --- | --- |
//! | viewer | read all there is about tasks, versions, devices and health; renew its own certificate |
//! | operator | start, stop, resume and roll back tasks, let devices in, shut them out |
//! | admin | make and revoke operators, read the audit log |
//!
//! Whether the holder of a certificate has the role is for [`Operators`](crate::operators::Operators) to say.

use proto::admin::AdminRequest;
use proto::message::Rejection;
use proto::role::Role;

use crate::peer::AdminName;

/// The least role that may ask this. A certificate may also be revoked by whoever it names, which is no part of the table:
/// that takes from nobody but the one who asks.
pub fn needed(request: &AdminRequest) -> Role {
    match request {
        AdminRequest::ListTasks
        | AdminRequest::ShowTask(_)
        | AdminRequest::ShowPrivacy(_)
        | AdminRequest::ListDevices(_)
        | AdminRequest::ShowDevice(_)
        | AdminRequest::ListTokens
        | AdminRequest::Fetch { .. }
        | AdminRequest::ShowHealth
        | AdminRequest::ListOperators
        // It says what the coordinator itself knows of a version, whoever asks, and changes nothing.
        | AdminRequest::SignVersion { .. }
        // For the one who asks, in the role that they have.
        | AdminRequest::SignOperator { .. } => Role::Viewer,
        AdminRequest::CreateTask { .. }
        | AdminRequest::StopTask(_)
        | AdminRequest::ResumeTask(_)
        | AdminRequest::RollBack { .. }
        | AdminRequest::IssueToken { .. }
        | AdminRequest::RevokeToken(_)
        | AdminRequest::RevokeDevice(_) => Role::Operator,
        AdminRequest::RevokeOperator(_) | AdminRequest::AddOperator { .. } | AdminRequest::ReadAudit { .. } => {
            Role::Admin
        }
    }
}

/// What whoever lacks a role is told.
pub fn refusal(request: &AdminRequest, name: &AdminName, held: Role) -> Rejection {
    let needed = needed(request);
    let article = |role: Role| match role {
        Role::Viewer => "a",
        Role::Operator | Role::Admin => "an",
    };
    let why = format!(
        "it needs {} {needed}, and `{name}` is {} {held}; an admin adds somebody as {} {needed} by `nightshift operator \
         add NAME --role {needed} --out DIR`",
        article(needed),
        article(held),
        article(needed)
    );
    Rejection::Unacceptable { request: request.name().into(), why }
}

#[cfg(test)]
mod tests {
    use proto::admin::DeviceQuery;
    use proto::ids::{DeviceId, Digest, Serial, TaskId, TokenId};

    use super::*;

    #[test]
    fn who_reads_changes_nothing_and_only_an_admin_decides_who_operates() {
        let task = TaskId([1; 16]);
        let by_role = [
            (
                Role::Viewer,
                vec![
                    AdminRequest::ListTasks,
                    AdminRequest::ShowTask(task),
                    AdminRequest::ShowPrivacy(task),
                    AdminRequest::SignVersion { task, version: 1 },
                    AdminRequest::ListDevices(DeviceQuery::default()),
                    AdminRequest::ShowDevice(DeviceId([1; 16])),
                    AdminRequest::ListTokens,
                    AdminRequest::Fetch { digest: Digest([2; 32]), offset: 0 },
                    AdminRequest::ShowHealth,
                    AdminRequest::ListOperators,
                    AdminRequest::SignOperator { certificate_request_pem: String::new() },
                ],
            ),
            (
                Role::Operator,
                vec![
                    AdminRequest::CreateTask { plan: Vec::new(), frozen: Vec::new() },
                    AdminRequest::StopTask(task),
                    AdminRequest::ResumeTask(task),
                    AdminRequest::IssueToken { label: String::new(), lifetime_secs: 1 },
                    AdminRequest::RevokeToken(TokenId([5; 8])),
                    AdminRequest::RollBack { task, version: 0 },
                    AdminRequest::RevokeDevice(DeviceId([3; 16])),
                ],
            ),
            (
                Role::Admin,
                vec![
                    AdminRequest::RevokeOperator(Serial([4; 16])),
                    AdminRequest::AddOperator {
                        name: String::new(),
                        role: Role::Viewer,
                        certificate_request_pem: String::new(),
                    },
                    AdminRequest::ReadAudit { from: 1 },
                ],
            ),
        ];
        for (role, requests) in by_role {
            for request in requests {
                assert_eq!(needed(&request), role, "{request:?}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_role_that_is_needed_and_the_one_that_is_held() {
        let refused =
            refusal(&AdminRequest::StopTask(TaskId([1; 16])), &"owl".parse().unwrap(), Role::Viewer);
        let said = refused.to_string();
        assert!(
            said.starts_with("`stop task` is not acceptable: it needs an operator, and `owl` is a viewer;"),
            "{said}"
        );
    }
}
