//! A trace: when each device was there, as somebody wrote it down.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::dice::millis;
use crate::world::Stay;

/// The longest that a trace may be, in seconds: as long as a world may last.
const LONGEST_SECS: f64 = 1000.0 * 3600.0;

/// A line of a trace.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    device: String,
    from: f64,
    to: f64,
}

/// A trace that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It is no CSV with these columns.
    #[error("{0}; a trace has the columns device,from,to, the last two in seconds since its beginning")]
    Csv(#[from] csv::Error),
    /// A stay that is none.
    #[error(
        "line {line}: device {device} is there from {from} to {to}, expected 0 <= from < to <= {LONGEST_SECS}"
    )]
    Stay {
        /// Which line.
        line: u64,
        /// Of whom.
        device: String,
        /// In seconds.
        from: f64,
        /// In seconds.
        to: f64,
    },
    /// There is nobody.
    #[error("it has no line with a device")]
    Empty,
}

/// When each device is there; devices are in the order of their first lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// All devices' stays, those of a device together and in order.
    stays: Vec<Stay>,
    /// Where those of each device end.
    ends: Vec<usize>,
}

impl Trace {
    /// Reads the columns `device`, `from` and `to`: any name, and seconds since the beginning. Stays of a device that touch
    /// are one.
    pub fn read(csv: impl Read) -> Result<Self, TraceError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(csv);
        let mut places = BTreeMap::new();
        let mut each: Vec<Vec<Stay>> = Vec::new();
        let headers = reader.headers()?.clone();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record)? {
            let number = record.position().map_or(0, csv::Position::line);
            let Line { device, from, to } = record.deserialize(Some(&headers))?;
            let stay = Stay { from_millis: millis(from), until_millis: millis(to) };
            let is_one = from >= 0.0 && to <= LONGEST_SECS && stay.from_millis < stay.until_millis;
            if !is_one {
                return Err(TraceError::Stay { line: number, device, from, to });
            }
            let next = each.len();
            let place = *places.entry(device).or_insert(next);
            if place == next {
                each.push(Vec::new());
            }
            each[place].push(stay);
        }
        if each.is_empty() {
            return Err(TraceError::Empty);
        }
        let (mut stays, mut ends): (Vec<Stay>, _) = (Vec::new(), Vec::new());
        for mut own in each {
            own.sort_by_key(|stay| (stay.from_millis, stay.until_millis));
            let first = stays.len();
            for stay in own {
                match stays[first..].last_mut() {
                    Some(last) if stay.from_millis <= last.until_millis => {
                        last.until_millis = last.until_millis.max(stay.until_millis);
                    }
                    Some(_) | None => stays.push(stay),
                }
            }
            ends.push(stays.len());
        }
        Ok(Self { stays, ends })
    }

    /// Devices that it names.
    pub fn devices(&self) -> usize {
        self.ends.len()
    }

    /// The first stay of a device that ends after so many milliseconds.
    pub fn stay(&self, device: usize, after_millis: u64) -> Option<Stay> {
        let end = *self.ends.get(device)?;
        let begin = device.checked_sub(1).map_or(0, |before| self.ends[before]);
        let own = &self.stays[begin..end];
        own.get(own.partition_point(|stay| stay.until_millis <= after_millis)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(csv: &str) -> String {
        Trace::read(csv.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn stays_are_in_order_and_those_that_touch_are_one() {
        let csv = "device,from,to\nb,100,200\na,5,10\nb,0,50\nb,150,300\nb,300,301.5\n";
        let trace = Trace::read(csv.as_bytes()).unwrap();
        assert_eq!(trace.devices(), 2);
        let stay = |from_millis, until_millis| Some(Stay { from_millis, until_millis });
        assert_eq!(trace.stay(0, 0), stay(0, 50_000));
        assert_eq!(trace.stay(0, 50_000), stay(100_000, 301_500));
        assert_eq!(trace.stay(0, 301_500), None);
        assert_eq!((trace.stay(1, 0), trace.stay(2, 0)), (stay(5_000, 10_000), None));
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        assert!(
            refused("device,from,to\na,0,1\nb,7,7\n").starts_with("line 3: device b is there from 7 to 7")
        );
        assert!(refused("device,from,to\na,-1,1\n").starts_with("line 2: device a"));
        assert!(refused("device,from,to\na,NaN,1\n").starts_with("line 2: device a"));
        assert!(refused("device,from,to\na,0,1e9\n").contains("3600000"));
        assert!(refused("device,from\na,1\n").contains("columns device,from,to"));
        assert!(refused("device,from,to,why\na,0,1,so\n").contains("columns device,from,to"));
        assert!(refused("device,from,to\na,zero,1\n").contains("columns device,from,to"));
        assert_eq!(refused("device,from,to\n"), "it has no line with a device");
    }
}
