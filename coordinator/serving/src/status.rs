//! Rejections as gRPC knows them, and in words for whoever asks by plain HTTP, such as a browser.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use proto::convert;
use proto::message::Rejection;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::peer::Peer;

/// What an operator is told whose certificate is not taken. The rejection's own words are for devices.
const OPERATOR: &str = "this operator's certificate is not taken here: it was revoked (`nightshift operator revoke`), replaced \
                        (`nightshift operator rotate`), or has ended; use the one that replaced it, or have an admin make another \
                        (`nightshift operator add`)";

/// The one place that maps rejections to gRPC; the rejection itself travels in the details.
pub fn of(rejection: &Rejection) -> Status {
    let code = match rejection {
        Rejection::Malformed { .. } | Rejection::Unacceptable { .. } => Code::InvalidArgument,
        Rejection::NotEnrolled => Code::Unauthenticated,
        Rejection::UnknownTask | Rejection::UnknownSession | Rejection::UnknownArtifact => Code::NotFound,
        Rejection::NotInRoster => Code::PermissionDenied,
        Rejection::Equivocation(_) => Code::AlreadyExists,
        Rejection::Stale { .. }
        | Rejection::ParticipationsSpent(_)
        | Rejection::WrongPhase { .. }
        | Rejection::LeftOut => Code::FailedPrecondition,
        Rejection::Unavailable(_) => Code::Unavailable,
    };
    Status::with_details(code, rejection.to_string(), convert::rejection_to_bytes(rejection).into())
}

/// Whether a request is one of gRPC, whose answers are read from trailers.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What plain HTTP calls a rejection, and its words for this peer.
pub fn in_words(rejection: &Rejection, peer: &Peer) -> (StatusCode, String) {
    let status = match rejection {
        Rejection::NotEnrolled | Rejection::NotInRoster => StatusCode::FORBIDDEN,
        Rejection::UnknownTask | Rejection::UnknownSession | Rejection::UnknownArtifact => {
            StatusCode::NOT_FOUND
        }
        Rejection::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Rejection::Malformed { .. }
        | Rejection::Unacceptable { .. }
        | Rejection::Equivocation(_)
        | Rejection::Stale { .. }
        | Rejection::ParticipationsSpent(_)
        | Rejection::WrongPhase { .. }
        | Rejection::LeftOut => StatusCode::BAD_REQUEST,
    };
    let words = match (rejection, peer) {
        (Rejection::NotEnrolled, Peer::Admin(_)) => OPERATOR.to_owned(),
        (other, Peer::Admin(_) | Peer::Device(_) | Peer::Coordinator(_) | Peer::Anonymous) => {
            other.to_string()
        }
    };
    (status, words)
}

/// A rejection as a page of plain text.
pub fn page(rejection: &Rejection, peer: &Peer) -> Response<Body> {
    let (status, words) = in_words(rejection, peer);
    let mut response = Response::new(Body::new(format!("{words}\n")));
    *response.status_mut() = status;
    let kept = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in kept {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_refused_in_words_of_whoever_asks() {
        let operator = Peer::Admin("owl".parse().unwrap());
        let (status, words) = in_words(&Rejection::NotEnrolled, &operator);
        assert_eq!((status.as_u16(), words.contains("operator's certificate is not taken")), (403, true));
        let (status, words) = in_words(&Rejection::NotEnrolled, &Peer::Device([1; 16]));
        assert_eq!((status.as_u16(), words), (403, Rejection::NotEnrolled.to_string()));
        let (status, _) = in_words(&Rejection::Unavailable("a full disk".to_owned()), &operator);
        assert_eq!(status.as_u16(), 503);
        assert_eq!(
            page(&Rejection::NotEnrolled, &operator).headers()[CONTENT_TYPE],
            "text/plain; charset=utf-8"
        );
    }

    #[test]
    fn a_call_of_grpc_is_known_by_its_content() {
        let headers = |kind| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        assert!(is_grpc(&headers("application/grpc")) && is_grpc(&headers("application/grpc+proto")));
        assert!(!is_grpc(&headers("text/html")) && !is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_rejection_comes_back_from_its_status() {
        let rejection = Rejection::Stale { found: 1, current: 2 };
        let status = of(&rejection);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(convert::rejection_from_bytes(status.details()), Ok(rejection));
    }
}
