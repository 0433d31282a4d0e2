//! A device whose training takes no time, as a process that can be killed.
//!
//! Its arguments: the folder of the enrolled device, the base, the device's number, where its coordinator is.
#![expect(clippy::print_stderr, reason = "what went wrong is in the test's log")]

use std::path::Path;
use std::process::ExitCode;

use nightshift_tests::one_hot::{OneHot, run};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(base), Some(number), Some(coordinator)) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("FOLDER BASE NUMBER COORDINATOR");
        return ExitCode::from(2);
    };
    let ended = number.parse().map_err(|error| format!("{number}: {error}")).and_then(|number| {
        let trainer = OneHot::new(Path::new(&base), number).map_err(|error| error.to_string())?;
        let device = run(Path::new(&folder), trainer, coordinator, CancellationToken::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(device).map_err(|error| error.to_string())
    });
    match ended {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
