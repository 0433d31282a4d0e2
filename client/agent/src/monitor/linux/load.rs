//! How busy others keep the machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use session::conditions::Reading;

use super::files::{entries, word};

/// Processor time since the machine started, in hundredths of a second, in which Linux counts it for programs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ticks {
    total: u64,
    idle: u64,
    own: u64,
    /// What `own` is of: two looks at different things are not compared.
    of: Own,
}

/// What counts as this program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// A control group in which nothing else runs: the files of it, and its name.
    Group(PathBuf),
    /// This process and all below it.
    Processes,
}

impl Own {
    /// The control group, where this program has one to itself, as a service does. In a session's, or in that of a whole
    /// container, others run too.
    pub(super) fn find(root: &Path) -> Self {
        group(root).map_or(Self::Processes, Self::Group)
    }
}

/// Reads processor time below `root`.
pub(super) fn ticks(root: &Path, of: &Own) -> Result<Ticks, String> {
    let text = word(&root.join("proc/stat")).ok_or("no /proc/stat")?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields = line.and_then(|line| line.split_whitespace().map(|field| field.parse().ok()).collect());
    let fields: Vec<u64> = fields.ok_or("/proc/stat does not begin with the processor's times")?;
    // user nice system idle iowait irq softirq steal; guest time is in user time already.
    let [_, _, _, idle, waiting, ..] = fields[..] else {
        return Err(format!(
            "/proc/stat has {} times of the processor; it should have 5 or more",
            fields.len()
        ));
    };
    let total = fields.iter().take(8).fold(0, |sum: u64, field| sum.saturating_add(*field));
    let own = match of {
        Own::Group(files) => group_ticks(files),
        Own::Processes => process_ticks(root),
    };
    let own = own.ok_or("this program's own processor time cannot be read")?;
    Ok(Ticks { total, idle: idle.saturating_add(waiting), own, of: of.clone() })
}

/// Processor time of others between two looks, in percent of the machine; `None` where that cannot be said.
pub(super) fn busy_percent(before: &Ticks, after: &Ticks) -> Option<f64> {
    let total = after.total.checked_sub(before.total).filter(|total| *total > 0 && before.of == after.of)?;
    let idle = after.idle.saturating_sub(before.idle);
    let own = after.own.saturating_sub(before.own);
    Some(100.0 * total.saturating_sub(idle).saturating_sub(own) as f64 / total as f64)
}

/// The share of the last ten seconds in which something waited for memory.
pub(super) fn pressure(root: &Path) -> Reading<f64> {
    const SOURCE: &str = "/proc/pressure/memory";
    let Some(text) = word(&root.join("proc/pressure/memory")) else {
        return Reading::unknown("no /proc/pressure/memory");
    };
    let some = text.lines().find_map(|line| line.strip_prefix("some "));
    let share = some.and_then(|line| line.split_whitespace().find_map(|field| field.strip_prefix("avg10=")));
    let share = share.and_then(|share| share.parse::<f64>().ok()).filter(|share| share.is_finite());
    share.map_or_else(
        || Reading::unknown("/proc/pressure/memory has no line \"some avg10=\""),
        |share| Reading::of(share, SOURCE),
    )
}

/// The folder of this program's control group, if nothing else is in it or below it.
fn group(root: &Path) -> Option<PathBuf> {
    let groups = word(&root.join("proc/self/cgroup"))?;
    let name = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    if name.is_empty() || name.split('/').any(|part| part == "..") {
        return None;
    }
    let mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
    let folder = mounts
        .map(|mount| root.join(mount).join(name))
        .into_iter()
        .find(|folder| group_ticks(folder).is_some() && word(&folder.join("cgroup.procs")).is_some())?;
    let own: BTreeSet<u64> = family(root)?.into_iter().collect();
    let mut folders = vec![folder.clone()];
    let mut found = BTreeSet::new();
    while let Some(next) = folders.pop() {
        let inside = word(&next.join("cgroup.procs")).unwrap_or_default();
        let Ok(inside) = inside.lines().map(str::parse).collect::<Result<Vec<u64>, _>>() else { return None };
        if !inside.iter().all(|id| own.contains(id)) {
            return None;
        }
        found.extend(inside);
        folders.extend(entries(&next, "").into_iter().filter(|path| path.is_dir()));
    }
    // A trainer in a group of its own beside this one would count as others.
    own.is_subset(&found).then_some(folder)
}

fn group_ticks(folder: &Path) -> Option<u64> {
    let text = word(&folder.join("cpu.stat"))?;
    let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(micros.trim().parse::<u64>().ok()? / 10_000)
}

/// The time of this process, of all below it, and of those below it that have ended.
fn process_ticks(root: &Path) -> Option<u64> {
    let mut own: u64 = 0;
    let mut found_self = false;
    for process in family(root)? {
        let time = stat(root, process).map(|stat| stat.ticks);
        found_self |= time.is_some();
        own = own.saturating_add(time.unwrap_or(0));
    }
    found_self.then_some(own)
}

/// This process and all below it.
fn family(root: &Path) -> Option<Vec<u64>> {
    let own = own_id(root)?;
    let mut found = vec![own];
    let mut at = 0;
    // The kernel may not list children; then every process is asked for its parent.
    let listed = |process: u64| -> Option<Vec<u64>> {
        let mut children = Vec::new();
        let threads = entries(&root.join(format!("proc/{process}/task")), "");
        if threads.is_empty() {
            return None;
        }
        for thread in threads {
            let text = word(&thread.join("children"))?;
            children.extend(text.split_whitespace().filter_map(|id| id.parse::<u64>().ok()));
        }
        Some(children)
    };
    let mut parents: Option<Vec<(u64, u64)>> = None;
    while let Some(process) = found.get(at).copied() {
        at += 1;
        let children = if parents.is_none() { listed(process) } else { None };
        let children = children.unwrap_or_else(|| {
            let parents = parents.get_or_insert_with(|| all_parents(root));
            parents.iter().filter(|(_, parent)| *parent == process).map(|(child, _)| *child).collect()
        });
        let new: Vec<u64> = children.into_iter().filter(|child| !found.contains(child)).collect();
        found.extend(new);
    }
    Some(found)
}

fn own_id(root: &Path) -> Option<u64> {
    word(&root.join("proc/self/stat"))?.split_whitespace().next()?.parse().ok()
}

fn all_parents(root: &Path) -> Vec<(u64, u64)> {
    let ids = entries(&root.join("proc"), "")
        .into_iter()
        .filter_map(|path| path.file_name()?.to_str()?.parse::<u64>().ok());
    ids.filter_map(|id| Some((id, stat(root, id)?.parent))).collect()
}

struct Stat {
    parent: u64,
    ticks: u64,
}

fn stat(root: &Path, process: u64) -> Option<Stat> {
    let text = word(&root.join(format!("proc/{process}/stat")))?;
    // The name in brackets may hold spaces: count from behind it.
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    // utime, stime, and the same of children that have ended.
    let times = [field(14)?, field(15)?, field(16)?, field(17)?];
    Some(Stat { parent: field(4)?, ticks: times.into_iter().fold(0, u64::saturating_add) })
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::{tree, write};
    use super::*;

    fn cpu(user: u64, idle: u64) -> String {
        format!("cpu  {user} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\n")
    }

    fn process(id: u64, parent: u64, times: [u64; 4]) -> (String, String) {
        let [user, system, children, children_system] = times;
        let text = format!(
            "{id} (a b) c) R {parent} 1 1 0 -1 0 0 0 0 0 {user} {system} {children} {children_system} 20 0"
        );
        (format!("proc/{id}/stat"), text)
    }

    /// A machine on which this program is process 50.
    fn machine(user: u64, processes: &[(String, String)]) -> tempfile::TempDir {
        let root = tree(&[("proc/stat", &cpu(user, 1000))]);
        for (path, text) in processes {
            write(root.path(), &[(path, text)]);
            if path == "proc/50/stat" {
                write(root.path(), &[("proc/self/stat", text)]);
            }
        }
        root
    }

    fn look(root: &Path) -> Ticks {
        ticks(root, &Own::find(root)).unwrap()
    }

    #[test]
    fn time_of_this_program_and_of_its_children_is_not_others() {
        let before = machine(
            100,
            &[process(50, 1, [10, 0, 0, 0]), process(51, 50, [5, 0, 0, 0]), process(7, 1, [9, 0, 0, 0])],
        );
        let after = machine(
            300,
            &[process(50, 1, [60, 20, 0, 0]), process(51, 50, [45, 0, 10, 0]), process(7, 1, [99, 0, 0, 0])],
        );
        let (before, after) = (look(before.path()), look(after.path()));
        assert_eq!((before.own, after.own), (15, 135));
        // 200 in all, none idle, 120 ours.
        assert_eq!(busy_percent(&before, &after), Some(40.0));
    }

    #[test]
    fn a_child_that_ended_and_a_grandchild_are_ours_too() {
        let with_child = machine(
            100,
            &[process(50, 1, [10, 0, 0, 0]), process(51, 50, [30, 0, 0, 0]), process(52, 51, [4, 0, 0, 0])],
        );
        let ended = machine(200, &[process(50, 1, [10, 0, 36, 4])]);
        let (before, after) = (look(with_child.path()), look(ended.path()));
        assert_eq!((before.own, after.own), (44, 50));
        assert_eq!(busy_percent(&before, &after), Some(94.0));
    }

    #[test]
    fn children_are_taken_from_the_kernel_s_list_where_it_has_one() {
        let root = machine(100, &[process(50, 1, [1, 0, 0, 0]), process(51, 50, [2, 0, 0, 0])]);
        // The list knows more than the parents do.
        write(root.path(), &[("proc/50/task/50/children", "51 "), ("proc/50/task/55/children", "60 ")]);
        let (path, text) = process(60, 9, [4, 0, 0, 0]);
        write(
            root.path(),
            &[(&path, &text), ("proc/51/task/51/children", ""), ("proc/60/task/60/children", "")],
        );
        assert_eq!(look(root.path()).own, 7);
    }

    #[test]
    fn a_control_group_is_ours_if_nothing_else_is_in_it() {
        let root = machine(100, &[process(50, 1, [1, 0, 0, 0]), process(51, 50, [1, 0, 0, 0])]);
        let service = "sys/fs/cgroup/system.slice/nightshift-agent.service";
        write(
            root.path(),
            &[
                ("proc/self/cgroup", "12:cpu:/x\n0::/system.slice/nightshift-agent.service\n"),
                (&format!("{service}/cpu.stat"), "usage_usec 3000000\nuser_usec 1\n"),
                (&format!("{service}/cgroup.procs"), "50\n"),
                (&format!("{service}/trainer/cgroup.procs"), "51\n"),
            ],
        );
        let own = Own::find(root.path());
        assert_eq!(own, Own::Group(root.path().join(service)));
        assert_eq!(ticks(root.path(), &own).unwrap().own, 300);
        // A shell next to it, as in a session.
        write(root.path(), &[(&format!("{service}/trainer/cgroup.procs"), "51\n7\n")]);
        assert_eq!(Own::find(root.path()), Own::Processes);
    }

    #[test]
    fn the_root_of_all_groups_is_not_ours() {
        let root = machine(100, &[process(50, 1, [1, 0, 0, 0])]);
        for name in ["0::/\n", "0::/../x\n", "3:cpu:/a\n", ""] {
            write(
                root.path(),
                &[
                    ("proc/self/cgroup", name),
                    ("sys/fs/cgroup/cpu.stat", "usage_usec 1\n"),
                    ("sys/fs/cgroup/cgroup.procs", "50\n"),
                ],
            );
            assert_eq!(Own::find(root.path()), Own::Processes, "{name:?}");
        }
    }

    #[test]
    fn looks_at_different_things_are_not_compared() {
        let times = |own, of: Own| Ticks { total: own * 10, idle: 0, own, of };
        assert_eq!(busy_percent(&times(1, Own::Processes), &times(2, Own::Group(PathBuf::from("/a")))), None);
        assert_eq!(busy_percent(&times(2, Own::Processes), &times(2, Own::Processes)), None);
        assert_eq!(busy_percent(&times(2, Own::Processes), &times(1, Own::Processes)), None);
    }

    #[test]
    fn what_is_not_there_or_not_understood_is_said() {
        let find = |root: &Path| ticks(root, &Own::find(root)).unwrap_err();
        assert_eq!(find(tree(&[]).path()), "no /proc/stat");
        assert!(find(tree(&[("proc/stat", "cpu  1 2 x")]).path()).contains("does not begin"));
        assert!(find(tree(&[("proc/stat", "cpu  1 2 3\n")]).path()).contains("has 3 times"));
        assert!(find(tree(&[("proc/stat", &cpu(1, 2))]).path()).contains("own"));
    }

    #[test]
    fn memory_pressure_is_that_of_some() {
        let text =
            "some avg10=12.50 avg60=3.00 avg300=1.00 total=99\nfull avg10=1.00 avg60=0 avg300=0 total=1\n";
        let read = |text: &str| pressure(tree(&[("proc/pressure/memory", text)]).path());
        assert_eq!(read(text), Reading::of(12.5, "/proc/pressure/memory"));
        assert_eq!(read("full avg10=1.00\n").value, None);
        assert_eq!(read("some avg10=NaN\n").value, None);
        assert_eq!(pressure(tree(&[]).path()), Reading::unknown("no /proc/pressure/memory"));
    }
}
