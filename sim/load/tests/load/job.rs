//! The Indexed Job of `deploy/` asks the program for what it takes, and its pods make one load.

use std::fs;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Job {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    spec: JobSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobSpec {
    completion_mode: String,
    completions: u32,
    parallelism: u32,
    active_deadline_seconds: u64,
    template: Template,
}

#[derive(Deserialize)]
struct Template {
    spec: Pod,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    restart_policy: String,
    containers: Vec<Container>,
    volumes: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    command: Vec<String>,
    args: Vec<String>,
    volume_mounts: Vec<Mount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: String,
    #[serde(rename = "mountPath")]
    path: String,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[test]
fn the_job_of_deploy_makes_one_load_of_all_of_its_pods() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/load-job.yaml");
    let job: Job = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!((job.api_version.as_str(), job.kind.as_str()), ("batch/v1", "Job"));
    // Kubernetes says each pod its number only so, and shards that wait for others would wait for ever.
    assert_eq!((job.spec.completion_mode.as_str(), job.spec.completions), ("Indexed", job.spec.parallelism));
    let pod = job.spec.template.spec;
    assert_eq!(pod.restart_policy, "Never");
    let [load] = &pod.containers[..] else { panic!("not one container") };
    assert_eq!(load.command, ["nightshift-sim", "load"]);

    let arguments = ["load"].into_iter().chain(load.args.iter().map(String::as_str));
    let asked = nightshift_load::cli::command().try_get_matches_from(arguments).unwrap();
    assert_eq!(asked.get_one::<u32>("shards"), Some(&job.spec.completions));
    let secs = u64::from(*asked.get_one::<u32>("secs").unwrap());
    assert!(secs < job.spec.active_deadline_seconds, "the job ends before the load");
    // What is read and written is there, and each pod writes a file of its own.
    let mount = |option: &str| {
        let path = asked.get_one::<std::path::PathBuf>(option).unwrap();
        let found = load.volume_mounts.iter().find(|mount| path.starts_with(&mount.path));
        let found = found.unwrap_or_else(|| panic!("{option} is on no volume"));
        assert_ne!(path, Path::new(&found.path), "{option}");
        assert!(pod.volumes.iter().any(|volume| volume.name == found.name), "{option}");
        found
    };
    assert!(mount("token_file").read_only && !mount("dir").read_only && !mount("report").read_only);
    let report = asked.get_one::<std::path::PathBuf>("report").unwrap();
    assert!(report.to_string_lossy().contains("{index}"));
}
