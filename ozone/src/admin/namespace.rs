//! `ozone admin namespace`: sizes, counts and quotas.

use clap::Subcommand;
use ozone_proto::metad::{BucketInfo, InfoVolumeRequest, VolumeInfo};
use ozone_types::FsResult;
use serde::Serialize;

use super::servers::{Servers, wait};
use super::show::{Format, Table, human};
use super::usage::{Counted, Entry, Place, Sum, Tell, bucket_info, buckets, count, place, volumes};
use crate::Outcome;
use crate::cluster_client::Admin;

#[derive(Subcommand)]
pub enum NamespaceCommand {
    /// What each directory in a directory adds up to, as du(1) does: the largest first.
    Du {
        /// `/vol/bucket/dir`; a volume or `/` tells of its buckets or volumes.
        path: String,
        /// Tell of files, too.
        #[arg(short, long, visible_alias = "files")]
        file: bool,
        /// Tell what is stored with all replicas.
        #[arg(short, long)]
        replica: bool,
        /// At most so many lines.
        #[arg(short, long, value_name = "N")]
        length: Option<usize>,
    },
    /// How many volumes, buckets, directories and files are there, and how large.
    Summary {
        /// `/vol/bucket/dir`, `/vol/bucket`, `/vol` or `/`.
        path: String,
    },
    /// Quota and use of a volume and its buckets, or of a bucket.
    Quota {
        /// `/vol/bucket`, `/vol` or `/`.
        path: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Du {
    path: String,
    #[serde(flatten)]
    sum: Sum,
    sub_paths: Vec<Entry>,
    /// Those that --length has left out.
    more: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    path: String,
    entity_type: &'static str,
    volumes: u64,
    buckets: u64,
    #[serde(flatten)]
    sum: Sum,
}

/// Quota and use. -1: no quota.
#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Quota {
    path: String,
    quota_in_bytes: i64,
    used_bytes: u64,
    quota_in_namespace: i64,
    used_namespace: u64,
}

pub fn run(servers: &Servers, format: Format, command: &NamespaceCommand) -> Outcome {
    let admin = servers.metad()?;
    match command {
        NamespaceCommand::Du { path, file, replica, length } => {
            let place = place(path)?;
            let tell = Tell { directories: true, files: *file };
            let counted = wait(count(&admin, &place, tell))?;
            let du = du(&place, counted, length.unwrap_or(usize::MAX));
            format.show(&du, |du| du_table(du, *replica))
        }
        NamespaceCommand::Summary { path } => {
            let place = place(path)?;
            let tell = Tell { directories: false, files: false };
            let counted = wait(count(&admin, &place, tell))?;
            format.show(&summary(&place, &counted), summary_lines)
        }
        NamespaceCommand::Quota { path } => {
            let quotas = wait(quotas(&admin, &place(path)?))?;
            format.show(&quotas, |quotas| quota_table(quotas))
        }
    }
}

fn du(place: &Place, counted: Counted, length: usize) -> Du {
    let mut sub_paths = counted.children;
    sub_paths.sort_by(|a, b| (b.sum.allocated, &a.path).cmp(&(a.sum.allocated, &b.path)));
    let more = sub_paths.len().saturating_sub(length);
    sub_paths.truncate(length);
    Du { path: place.text(), sum: counted.sum, sub_paths, more }
}

/// `replica`: what is stored counts with its replicas.
fn du_table(du: &Du, replica: bool) -> String {
    let stored = if replica { ">with replicas" } else { ">stored" };
    let columns = [">size", stored, ">files", ">directories", ">others", "path"];
    let mut table = Table::new(&columns);
    let line = |sum: &Sum, path: &str| {
        [
            human(sum.bytes),
            human(if replica { sum.replicated } else { sum.allocated }),
            sum.files.to_string(),
            sum.directories.to_string(),
            sum.others.to_string(),
            path.to_owned(),
        ]
    };
    for entry in &du.sub_paths {
        table.row(line(&entry.sum, &entry.path));
    }
    if du.more > 0 {
        let mut left_out = line(&Sum::default(), &format!("({} more, left out)", du.more));
        left_out[..5].fill(String::new());
        table.row(left_out);
    }
    table.row(line(&du.sum, &format!("{} (all of it)", du.path)));
    table.render("")
}

fn summary(place: &Place, counted: &Counted) -> Summary {
    let entity_type = match place {
        Place::Cluster => "ROOT",
        Place::Volume(_) => "VOLUME",
        Place::InBucket { path, .. } if path.is_empty() => "BUCKET",
        Place::InBucket { .. } if counted.is_directory => "DIRECTORY",
        Place::InBucket { .. } => "KEY",
    };
    Summary {
        path: place.text(),
        entity_type,
        volumes: counted.volumes,
        buckets: match place {
            Place::InBucket { .. } => 0,
            Place::Cluster | Place::Volume(_) => counted.buckets,
        },
        sum: counted.sum,
    }
}

fn summary_lines(s: &Summary) -> String {
    let mut lines = vec![("path", s.path.clone()), ("type", s.entity_type.to_owned())];
    if s.entity_type == "ROOT" {
        lines.push(("volumes", s.volumes.to_string()));
    }
    if matches!(s.entity_type, "ROOT" | "VOLUME") {
        lines.push(("buckets", s.buckets.to_string()));
    }
    lines.extend([
        ("directories", s.sum.directories.to_string()),
        ("files", s.sum.files.to_string()),
        ("others", s.sum.others.to_string()),
        ("size", format!("{} ({} bytes)", human(s.sum.bytes), s.sum.bytes)),
        ("stored", format!("{} ({} bytes)", human(s.sum.allocated), s.sum.allocated)),
    ]);
    lines.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}

/// A volume comes before its buckets. A directory has the quota of its bucket.
async fn quotas(admin: &Admin, place: &Place) -> FsResult<Vec<Quota>> {
    let mut quotas = Vec::new();
    match place {
        Place::Cluster => {
            for volume in volumes(admin).await? {
                quotas.push(of_volume(&volume, &buckets(admin, &volume.name).await?));
            }
        }
        Place::Volume(name) => {
            let request = InfoVolumeRequest { volume: name.clone() };
            let volume = admin
                .call(|mut a| {
                    let request = request.clone();
                    async move { a.info_volume(request).await }
                })
                .await?;
            let buckets = buckets(admin, name).await?;
            quotas.push(of_volume(&volume, &buckets));
            quotas.extend(buckets.iter().map(of_bucket));
        }
        Place::InBucket { volume, bucket, .. } => {
            quotas.push(of_bucket(&bucket_info(admin, volume, bucket).await?));
        }
    }
    Ok(quotas)
}

/// Its bytes are those of its buckets, its names are the buckets.
fn of_volume(volume: &VolumeInfo, buckets: &[BucketInfo]) -> Quota {
    Quota {
        path: format!("/{}", volume.name),
        quota_in_bytes: volume.quota_bytes,
        used_bytes: buckets.iter().map(|b| b.used_bytes).sum(),
        quota_in_namespace: volume.quota_names,
        used_namespace: volume.used_names,
    }
}

fn of_bucket(bucket: &BucketInfo) -> Quota {
    Quota {
        path: format!("/{}/{}", bucket.volume, bucket.name),
        quota_in_bytes: bucket.quota_bytes,
        used_bytes: bucket.used_bytes,
        quota_in_namespace: bucket.quota_names,
        used_namespace: bucket.used_names,
    }
}

fn quota_table(quotas: &[Quota]) -> String {
    let columns = ["path", ">used", ">quota", ">%", ">names", ">names quota", ">%"];
    let mut table = Table::new(&columns);
    for q in quotas {
        let none = || "none".to_owned();
        table.row([
            q.path.clone(),
            human(q.used_bytes),
            u64::try_from(q.quota_in_bytes).map_or_else(|_| none(), human),
            percent(q.used_bytes, q.quota_in_bytes),
            q.used_namespace.to_string(),
            u64::try_from(q.quota_in_namespace).map_or_else(|_| none(), |n| n.to_string()),
            percent(q.used_namespace, q.quota_in_namespace),
        ]);
    }
    table.render("there are no volumes")
}

/// How much of a quota is used; nothing where there is none.
fn percent(used: u64, quota: i64) -> String {
    match u64::try_from(quota) {
        Err(_) => String::new(),
        Ok(0) => "100".to_owned(),
        Ok(quota) => (u128::from(used) * 100 / u128::from(quota)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, allocated: u64) -> Entry {
        Entry { path: path.into(), sum: Sum { allocated, files: 1, ..Sum::default() } }
    }

    #[test]
    fn du_tells_the_largest_first_and_what_it_left_out() {
        let counted = Counted {
            sum: Sum { allocated: 9, files: 3, ..Sum::default() },
            children: vec![entry("/v/b/b", 2), entry("/v/b/c", 5), entry("/v/b/a", 2)],
            is_directory: true,
            ..Counted::default()
        };
        let place = Place::parse("/v/b");
        let all = du(&place, counted.clone(), usize::MAX);
        let paths: Vec<_> = all.sub_paths.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["/v/b/c", "/v/b/a", "/v/b/b"]);
        let text = du_table(&du(&place, counted, 1), false);
        assert!(text.contains("(2 more, left out)"), "{text}");
        assert!(text.lines().last().unwrap().ends_with("/v/b (all of it)"), "{text}");
    }

    #[test]
    fn what_a_path_names_has_its_type() {
        let kind = |path: &str, is_directory| {
            let counted = Counted { buckets: 1, is_directory, ..Counted::default() };
            let summary = summary(&Place::parse(path), &counted);
            (summary.entity_type, summary.buckets)
        };
        assert_eq!(kind("/", true), ("ROOT", 1));
        assert_eq!(kind("/v", true), ("VOLUME", 1));
        assert_eq!(kind("/v/b", true), ("BUCKET", 0));
        assert_eq!(kind("/v/b/d", true), ("DIRECTORY", 0));
        assert_eq!(kind("/v/b/f", false), ("KEY", 0));
    }

    #[test]
    fn quotas_are_told_in_percent() {
        assert_eq!(percent(5, -1), "");
        assert_eq!(percent(1, 3), "33");
        assert_eq!(percent(u64::MAX, i64::MAX), "200");
        assert_eq!(percent(0, 0), "100");
        let bucket = BucketInfo {
            volume: "v".into(),
            name: "b".into(),
            quota_bytes: 2048,
            quota_names: -1,
            used_bytes: 1024,
            used_names: 7,
            ..Default::default()
        };
        let volume = VolumeInfo {
            name: "v".into(),
            quota_bytes: -1,
            quota_names: -1,
            used_names: 2,
            ..Default::default()
        };
        let quotas = [of_volume(&volume, &[bucket.clone(), bucket.clone()]), of_bucket(&bucket)];
        assert_eq!((quotas[0].used_bytes, quotas[0].used_namespace), (2048, 2));
        let text = quota_table(&quotas);
        let line = text.lines().last().unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["/v/b", "1.0", "KiB", "2.0", "KiB", "50", "7", "none"], "{text}");
    }
}
