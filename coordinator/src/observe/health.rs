//! gRPC's health service (`grpc.health.v1.Health`) on both listeners.
//!
//! Whoever has a certificate that is good at the listener may ask. A peer without one may not: at the listener of devices it may
//! enroll and renew, and what else it may would be for everybody on the network; a balancer without a certificate asks
//! `/readyz` of the metrics' listener. `Watch` is refused: an answer here is made whole before it goes, and one that never ends
//! would hold its place for ever.

use std::pin::Pin;

use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Readiness;

/// The services that are asked for by name; the empty name is all of them.
const SERVICES: [&str; 3] = ["", "nightshift.v1.Device", "nightshift.v1.Admin"];

/// The service.
#[derive(Debug)]
pub struct HealthService(Readiness);

/// The service, for a listener.
pub fn service(readiness: Readiness) -> HealthServer<HealthService> {
    HealthServer::new(HealthService(readiness))
}

impl HealthService {
    fn status(&self) -> HealthCheckResponse {
        let status =
            if self.0.why_not().is_none() { ServingStatus::Serving } else { ServingStatus::NotServing };
        // The library's words have the numbers of the wire's.
        HealthCheckResponse { status: status as i32 }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        if SERVICES.contains(&name.as_str()) {
            Ok(Response::new(self.status()))
        } else {
            Err(Status::not_found("no such service"))
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("this server answers `Check`, as often as it is asked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(service: &HealthService, name: &str) -> Result<i32, tonic::Code> {
        let request = Request::new(HealthCheckRequest { service: name.to_owned() });
        service.check(request).await.map(|reply| reply.into_inner().status).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn it_serves_until_it_stops_and_watching_is_refused() {
        use tonic_health::pb::health_check_response::ServingStatus as OnWire;

        let folder = tempfile::tempdir().unwrap();
        let driver = crate::enrollment::test_registry(folder.path()).driver;
        let readiness = Readiness::new(driver.clone());
        let service = HealthService(readiness.clone());
        for name in SERVICES {
            assert_eq!(asked(&service, name).await, Ok(OnWire::Serving as i32));
        }
        assert_eq!(asked(&service, "nightshift.v1.Other").await, Err(tonic::Code::NotFound));
        readiness.stops();
        assert_eq!(asked(&service, "").await, Ok(OnWire::NotServing as i32));
        let watched = service.watch(Request::new(HealthCheckRequest { service: String::new() })).await;
        assert_eq!(watched.err().map(|status| status.code()), Some(tonic::Code::Unimplemented));

        let failed = HealthService(Readiness::new(driver.clone()));
        assert_eq!(asked(&failed, "").await, Ok(OnWire::Serving as i32));
        driver.fail(&crate::driver::DriverError::Broken("a test".to_owned()));
        assert_eq!(asked(&failed, "").await, Ok(OnWire::NotServing as i32));
        assert_eq!(failed.0.why_not(), Some("stopped after a failed write"));
    }
}
