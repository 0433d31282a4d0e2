//! The choice of a backend and device, and how a person names them.
//!
//! Our own kernels run on the CPU only. candle adds GPUs with its features `cuda` and `metal`, and a vendor's
//! library of matrix products on the CPU with `accelerate` and `mkl`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// What computes an engine's passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Our own kernels, on the CPU.
    #[default]
    Cpu,
    /// candle's operations, on one of its devices.
    Candle(CandleDevice),
}

/// A candle device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandleDevice {
    /// The CPU; with the feature `accelerate` or `mkl`, that library computes matrix products.
    Cpu,
    /// An NVIDIA GPU by its index, from 0.
    Cuda(usize),
    /// An Apple GPU by its index, from 0.
    Metal(usize),
}

/// The device that a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DeviceRequest {
    /// On a GPU where this program was built for one and it opens, else on the CPU with our own kernels.
    #[default]
    Auto,
    /// This backend, or an error.
    At(Backend),
}

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// An unknown name of a device.
    #[error("unknown device `{0}`; use auto, cpu, candle, cuda, cuda:N, metal or metal:N, N counted from 0")]
    Unknown(String),
    /// The program was built without the feature that the device needs.
    #[error(
        "this program was built without the feature `{feature}`, which the device `{device}` needs; build it with `cargo build --release -p nightshift-agent --features {feature}`, or use the device cpu"
    )]
    NotBuilt {
        /// The device.
        device: CandleDevice,
        /// The feature.
        feature: &'static str,
    },
    /// The device is not there, or its driver refuses.
    #[error(
        "the device `{device}` cannot be opened: {reason}; check that it is there and has this number, and its driver, or use the device cpu"
    )]
    NotOpened {
        /// The device.
        device: CandleDevice,
        /// What candle said.
        reason: String,
    },
    /// The base does not fit the device.
    #[error(
        "the base cannot be put on the device `{device}`: {reason}; use a smaller base, or the device cpu"
    )]
    NotLoaded {
        /// The device.
        device: CandleDevice,
        /// What candle said.
        reason: String,
    },
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Candle(device) => device.fmt(f),
        }
    }
}

impl fmt::Display for CandleDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("candle"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    fn from_str(word: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(word.to_owned());
        let (kind, number) = match word.split_once(':') {
            None => (word, None),
            // Digits only: `parse` would also accept a sign.
            Some((kind, digits)) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                (kind, Some(digits.parse().map_err(|_| unknown())?))
            }
            Some(_) => return Err(unknown()),
        };
        match (kind, number) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::At(Backend::Cpu)),
            ("candle", None) => Ok(Self::At(Backend::Candle(CandleDevice::Cpu))),
            ("cuda", number) => Ok(Self::At(Backend::Candle(CandleDevice::Cuda(number.unwrap_or(0))))),
            ("metal", number) => Ok(Self::At(Backend::Candle(CandleDevice::Metal(number.unwrap_or(0))))),
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for DeviceRequest {
    type Error = DeviceError;

    fn try_from(word: String) -> Result<Self, DeviceError> {
        word.parse()
    }
}

impl CandleDevice {
    /// Whether it is a GPU, which has its own memory and multiplies bf16.
    #[cfg(feature = "candle")]
    pub(crate) fn is_gpu(self) -> bool {
        match self {
            Self::Cpu => false,
            Self::Cuda(_) | Self::Metal(_) => true,
        }
    }

    /// The library that computes products on the CPU, where it is not candle itself.
    #[cfg(feature = "candle")]
    pub(crate) fn library(self) -> Option<&'static str> {
        match self {
            Self::Cpu if cfg!(feature = "mkl") => Some("mkl"),
            Self::Cpu if cfg!(feature = "accelerate") => Some("accelerate"),
            Self::Cpu | Self::Cuda(_) | Self::Metal(_) => None,
        }
    }

    /// The feature that a program needs for it.
    pub(crate) fn feature(self) -> &'static str {
        match self {
            Self::Cpu => "candle",
            Self::Cuda(_) => "cuda",
            Self::Metal(_) => "metal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(word: &str) -> Result<DeviceRequest, String> {
        word.parse().map_err(|error: DeviceError| error.to_string())
    }

    #[test]
    fn a_device_reads_back_from_its_name() {
        let candle = |device| DeviceRequest::At(Backend::Candle(device));
        assert_eq!(chosen("auto"), Ok(DeviceRequest::Auto));
        for (word, backend) in [
            ("cpu", DeviceRequest::At(Backend::Cpu)),
            ("candle", candle(CandleDevice::Cpu)),
            ("cuda:0", candle(CandleDevice::Cuda(0))),
            ("cuda:12", candle(CandleDevice::Cuda(12))),
            ("metal:1", candle(CandleDevice::Metal(1))),
        ] {
            assert_eq!(chosen(word), Ok(backend));
            let DeviceRequest::At(backend) = backend else { panic!("{word} is one place") };
            assert_eq!(backend.to_string(), word);
        }
        assert_eq!(chosen("cuda"), chosen("cuda:0"));
        assert_eq!(chosen("metal"), chosen("metal:0"));
    }

    #[test]
    fn a_word_that_is_no_device_is_named_with_those_that_are() {
        for word in ["", "gpu", "cuda:", "cuda:+1", "cuda:x", "cpu:0", "candle:1", "metal:1:2", "CUDA"] {
            let error = chosen(word).unwrap_err();
            assert!(error.starts_with(&format!("unknown device `{word}`; use auto, cpu, ")), "{error}");
        }
        assert!(chosen("cuda:99999999999999999999999").is_err());
    }

    #[test]
    fn a_device_that_the_program_was_not_built_for_is_refused_with_the_feature_to_build() {
        for (word, feature, built) in
            [("cuda:77", "cuda", cfg!(feature = "cuda")), ("metal:77", "metal", cfg!(feature = "metal"))]
        {
            let error = chosen(word).unwrap().resolve().unwrap_err().to_string();
            let expected = if built {
                format!("the device `{word}` cannot be opened: ")
            } else {
                format!(
                    "this program was built without the feature `{feature}`, which the device `{word}` needs; \
                     build it with `cargo build --release -p nightshift-agent --features {feature}`, "
                )
            };
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn our_own_kernels_are_the_place_where_no_gpu_was_built_for() {
        let backend = DeviceRequest::Auto.resolve().unwrap();
        assert!(backend == Backend::Cpu || cfg!(any(feature = "cuda", feature = "metal")), "{backend}");
        assert_eq!(chosen("cpu").unwrap().resolve(), Ok(Backend::Cpu));
        assert_eq!(chosen("candle").unwrap().resolve(), Ok(Backend::Candle(CandleDevice::Cpu)));
    }
}
