//! What stands between a connection and the services, before anything is decoded: who may call what, how often, and
//! with how large a message.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use proto::message::Rejection;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::allowance::{Allowance, CALLS_A_SECOND, CALLS_AT_ONCE};
use super::answer::{Answer, Calls, UnderWay};
use super::message::{self, Memory, Share, Unread, Whole};
use super::turned_away::{Reason, TurnedAway};
use crate::peer::{ConnectInfo, Peer};
use crate::status;

/// What a peer without a certificate may call.
const WITHOUT_CERTIFICATE: [&str; 2] = ["/nightshift.v1.Device/Enroll", "/nightshift.v1.Device/Renew"];

type Pace = RateLimiter<Peer, HashMapStateStore<Peer>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// What all connections of a listener share.
pub(super) struct Shared {
    pub(super) turned_away: Arc<TurnedAway>,
    memory: Memory,
    /// As much again, for answers.
    answers: Memory,
    pace: Pace,
    admits: Admits,
}

/// Whether a peer may call now: whom its certificate names may have been shut out since.
pub type Admits = Arc<dyn Fn(&ConnectInfo) -> bool + Send + Sync>;

/// One connection's way to the services, which its calls share.
#[derive(Debug)]
pub(super) struct Guard<S>(Arc<Way<S>>);

#[derive(Debug)]
struct Way<S> {
    shared: Arc<Shared>,
    info: ConnectInfo,
    allowance: Allowance,
    calls: Arc<Calls>,
    services: S,
}

/// A call that is under way, with the message that came with it.
struct Read {
    call: UnderWay,
    request: Request<Body>,
    share: Share,
}

impl Shared {
    pub(super) fn new(turned_away: Arc<TurnedAway>, memory_bytes: usize, admits: Admits) -> Self {
        let memory = || Arc::new(Semaphore::new(memory_bytes.min(Semaphore::MAX_PERMITS)));
        let quota = Quota::per_second(CALLS_A_SECOND).allow_burst(CALLS_AT_ONCE);
        let pace = RateLimiter::hashmap_with_clock(quota, MonotonicClock);
        Self { turned_away, memory: memory(), answers: memory(), pace, admits }
    }

    /// Forgets peers that have not called for long; to be called once a minute.
    pub(super) fn tidy(&self) {
        self.pace.retain_recent();
        self.pace.shrink_to_fit();
    }

    /// Whether a peer may call now.
    pub(super) fn admits(&self, info: &ConnectInfo) -> bool {
        (self.admits)(info)
    }

    fn count(&self, unread: Unread) -> Rejection {
        if let Some(reason) = unread.reason {
            self.turned_away.count(reason);
        }
        unread.rejection
    }

    /// Waits until the peer may call again.
    async fn take_turn(&self, peer: &Peer) {
        let mut waited = false;
        while let Err(not_until) = self.pace.check_key(peer) {
            if !std::mem::replace(&mut waited, true) {
                self.turned_away.count(Reason::TooOften);
            }
            sleep(not_until.wait_time_from(MonotonicClock.now())).await;
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("turned_away", &self.turned_away).finish_non_exhaustive()
    }
}

impl<S> Guard<S> {
    /// For a peer that may hold what `holds` may.
    pub(super) fn new(shared: Arc<Shared>, info: ConnectInfo, holds: &Peer, services: S) -> Self {
        let allowance = Allowance::of(holds);
        Self(Arc::new(Way { shared, info, allowance, calls: Arc::new(Calls::new()), services }))
    }

    /// What is under way.
    pub(super) fn calls(&self) -> &Arc<Calls> {
        &self.0.calls
    }

    pub(super) fn allowance(&self) -> Allowance {
        self.0.allowance
    }
}

impl<S> Way<S> {
    /// Reads a call, from whoever may make it now.
    async fn read(&self, request: Request<Incoming>) -> Result<Read, Rejection> {
        let call = self.calls.begin();
        let (mut parts, body) = request.into_parts();
        let anonymous = self.info.peer == Peer::Anonymous;
        let may_call = !anonymous || WITHOUT_CERTIFICATE.contains(&parts.uri.path());
        if !may_call || !self.shared.admits(&self.info) {
            self.shared.turned_away.count(Reason::NotEnrolled);
            return Err(Rejection::NotEnrolled);
        }
        if !anonymous {
            self.shared.take_turn(&self.info.peer).await;
        }
        let Allowance { message_bytes, message_time, .. } = self.allowance;
        // As many as there may be of them, their messages take a mebibyte together.
        let memory = (!anonymous).then_some(&self.shared.memory);
        let read = timeout(message_time, message::read(body, message_bytes, memory)).await;
        let Whole { bytes, share } = read
            .unwrap_or_else(|_| Err(message::too_slow(message_time)))
            .map_err(|unread| self.shared.count(unread))?;
        self.shared.turned_away.traffic.received(bytes.len());
        parts.extensions.insert(self.info.clone());
        Ok(Read { call, request: Request::from_parts(parts, Body::new(Full::new(bytes))), share })
    }

    /// Lets an answer out, whole.
    async fn give(&self, call: UnderWay, response: Response<Body>) -> Result<Response<Body>, Rejection> {
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else {
            return Err(Rejection::Unavailable("the answer could not be made".to_owned()));
        };
        let trailers = body.trailers().cloned();
        let bytes = body.to_bytes();
        let share = message::take_for_answer(&self.shared.answers, bytes.len()).await;
        let share = share.map_err(|unread| self.shared.count(unread))?;
        self.shared.turned_away.traffic.sends(bytes.len());
        let answer = Answer::new(bytes, trailers, call, share);
        Ok(Response::from_parts(parts, Body::new(answer)))
    }
}

impl<S> Way<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    /// A call may be held for long: what it took to read it, and what it takes to answer it, are not kept beside it.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Rejection> {
        let Read { call, request, share } = Box::pin(self.read(request)).await?;
        let Ok(response) = self.services.clone().oneshot(request).await;
        drop(share);
        Box::pin(self.give(call, response)).await
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let way = Arc::clone(&self.0);
        let is_grpc = status::is_grpc(request.headers());
        Box::pin(async move {
            let answer = way.answer(request).await;
            Ok(answer.unwrap_or_else(|rejection| {
                // A browser reads no trailers.
                if is_grpc {
                    status::of(&rejection).into_http()
                } else {
                    status::page(&rejection, &way.info.peer)
                }
            }))
        })
    }
}
