//! What a simulated TPM says, from the agent's side to the record of the device.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::tpm::{KeyKind, Tpm};
use proto::ids::Digest;

use super::World;

/// A simulated TPM that runs until this is dropped.
struct Simulated {
    child: Child,
    path: PathBuf,
}

impl Drop for Simulated {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Simulated {
    /// None where the program is not installed.
    fn start(folder: &Path) -> Option<Self> {
        std::fs::create_dir(folder).unwrap();
        let path = folder.join("socket");
        let started = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", path.display()))
            .stdin(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            assert!(
                std::env::var_os("NIGHTSHIFT_REQUIRE_SWTPM").is_none(),
                "NIGHTSHIFT_REQUIRE_SWTPM is set"
            );
            return None;
        };
        let simulated = Self { child, path };
        let ends = Instant::now() + Duration::from_secs(30);
        while !simulated.path.exists() {
            assert!(Instant::now() < ends, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(simulated)
    }

    fn tpm(&self, registers: &[u8], key: KeyKind) -> Tpm {
        let registers: BTreeSet<u8> = registers.iter().copied().collect();
        Tpm { path: self.path.clone(), registers, key, certificates: Vec::new() }
    }

    /// Makes a register hold something else (`TPM2_PCR_Extend`).
    fn extend(&self, register: u8) {
        let digests = [&1_u32.to_be_bytes()[..], &[0, 0x0b], &[7; 32]].concat();
        let password = [&9_u32.to_be_bytes()[..], &0x4000_0009_u32.to_be_bytes(), &[0; 5]].concat();
        let body = [&[0, 0, 0, register], &password[..], &digests].concat();
        let size = u32::try_from(10 + body.len()).unwrap();
        let command = [&[0x80, 2][..], &size.to_be_bytes(), &0x0182_u32.to_be_bytes(), &body].concat();
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.write_all(&command).unwrap();
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[6..10], [0; 4], "the TPM refused it");
    }
}

/// A coordinator that asks for two registers as they are in a machine that was just started.
async fn world(folder: tempfile::TempDir, list: &Path) -> World {
    std::fs::write(list, "").unwrap();
    let zeros = Digest([0; 32]);
    let lines = format!(
        "[attestation]\nkind = 'tpm'\nallow_list = '{}'\n[attestation.registers]\n0 = ['{zeros}']\n7 = ['{zeros}']",
        list.display()
    );
    World::new(folder, &lines).await
}

fn fingerprint(refused: &str) -> Digest {
    let (_, rest) = refused.split_once("the TPM's key ").unwrap_or_else(|| panic!("{refused}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_admitted_by_what_its_tpm_says_and_by_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let Some(simulated) = Simulated::start(&folder.path().join("tpm")) else {
        eprintln!(
            "skipped: swtpm is not installed, a_device_is_admitted_by_what_its_tpm_says_and_by_nothing_else"
        );
        return;
    };
    let list = folder.path().join("list");
    let mut world = world(folder, &list).await;
    let token = world.token().await;

    let bare = world.enroll("anna", &token, None).await.unwrap_err();
    assert!(bare.contains("enroll with --attest tpm"), "{bare}");
    let tpm = simulated.tpm(&[0, 7], KeyKind::Ecc);
    let unlisted = world.enroll("anna", &token, Some(&tpm)).await.unwrap_err();
    assert!(unlisted.contains("ask the operator to list it"), "{unlisted}");
    let key = fingerprint(&unlisted);
    std::fs::write(&list, format!("tpm {key}\n")).unwrap();
    let others = simulated.tpm(&[0, 1], KeyKind::Ecc);
    let others = world.enroll("anna", &token, Some(&others)).await.unwrap_err();
    assert!(
        others.contains("the registers 0,7 are asked for") && others.contains("is about 0,1"),
        "{others}"
    );
    assert_eq!((world.open_tokens().await, world.devices().await), (1, 0));

    // The same key comes each time.
    let anna = world.enroll("anna", &token, Some(&tpm)).await.unwrap();
    let attested = world.show(anna).await.attested.unwrap();
    assert_eq!((attested.kind.as_str(), attested.is_current), ("tpm", true));
    assert_ne!(attested.policy, Digest([0; 32]));

    // A key of the other kind is another one.
    let token = world.token().await;
    let rsa = simulated.tpm(&[0, 7], KeyKind::Rsa);
    let other = fingerprint(&world.enroll("bela", &token, Some(&rsa)).await.unwrap_err());
    assert_ne!(other, key);
    std::fs::write(&list, format!("tpm {key}\ntpm {other}\n")).unwrap();
    world.enroll("bela", &token, Some(&rsa)).await.unwrap();

    // A machine that was started with something else is not admitted any more.
    let token = world.token().await;
    simulated.extend(7);
    let changed = world.enroll("cleo", &token, Some(&tpm)).await.unwrap_err();
    assert!(changed.contains("register 7 of the TPM holds"), "{changed}");
    assert_eq!((world.open_tokens().await, world.devices().await), (1, 2));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_nobody_asked_for_keeps_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let Some(simulated) = Simulated::start(&folder.path().join("tpm")) else {
        eprintln!("skipped: swtpm is not installed, a_statement_that_nobody_asked_for_keeps_nobody_out");
        return;
    };
    let mut world = World::new(folder, "").await;
    let token = world.token().await;
    let tpm = simulated.tpm(&[0], KeyKind::Ecc);
    let anna = world.enroll("anna", &token, Some(&tpm)).await.unwrap();
    assert_eq!(world.show(anna).await.attested, None);
    // A TPM that is asked for what it does not have says so, and no coordinator is asked.
    let nowhere = Tpm { path: world.home("nowhere"), ..tpm };
    let absent = world.enroll("bela", &token, Some(&nowhere)).await.unwrap_err();
    assert!(absent.contains("cannot be asked"), "{absent}");
    world.end().await;
}
