//! Options that all generators share. Where Ozone's freon has one, it has the same name here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ozone_fuse_client::options::size as parse_size;

use super::engine::Plan;
use crate::Failure;
use crate::admin::show::Format;
use crate::cluster_client::MetadAddress;

/// Threads when nothing is said, as in Ozone.
const THREADS: usize = 10;
/// Characters of a prefix that was not given, as in Ozone.
const PREFIX_LENGTH: usize = 10;

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Number of the generated objects.
    #[arg(
        short,
        long = "number-of-tests",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    number: u64,
    /// Threads, all clients' together [default: 10, or one for each client if these are more].
    #[arg(short, long, alias = "thread", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
    /// Run for so long, e.g. 30s, 5m, 1h; the objects come again and again.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// What begins in this time is done, but not counted.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    warm_up: Duration,
    /// Go on after a failure.
    #[arg(short, long)]
    fail_at_end: bool,
    /// First part of all names, by which a validator finds them [default: ten random characters].
    #[arg(short, long, default_value = "")]
    prefix: String,
    /// What contents and random choices follow from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// JSON for machines, instead of a table for people.
    #[arg(long)]
    json: bool,
}

impl RunArgs {
    /// Error: fewer threads than clients.
    pub fn plan(&self, title: &'static str, clients: usize) -> Result<Plan, Failure> {
        let threads = self.threads.map_or(THREADS.max(clients), usize::from);
        if threads < clients {
            let why = format!("{clients} clients need as many threads (-t), not {threads}");
            return Err(Failure::new(2, format!("ozone freon: {why}")));
        }
        Ok(Plan {
            number: self.number,
            threads,
            clients,
            duration: self.duration,
            warm_up: self.warm_up,
            fail_at_end: self.fail_at_end,
            seed: self.seed,
            title: Some(title),
        })
    }

    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Human }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The prefix of what is made: a random one if none is given.
    pub fn new_prefix(&self) -> Result<String, Failure> {
        if self.prefix.is_empty() {
            let letters = ozone_platform::random::bytes::<PREFIX_LENGTH>().map(|byte| {
                // 10 + 26 characters; that some come a little more often does no harm.
                char::from_digit(u32::from(byte) % 36, 36).unwrap_or('0')
            });
            return Ok(letters.iter().collect());
        }
        self.checked()
    }

    /// The prefix of what is there. Error: it is not given.
    pub fn known_prefix(&self) -> Result<String, Failure> {
        if self.prefix.is_empty() {
            let why = "ozone freon: --prefix is needed: that of the run that wrote";
            return Err(Failure::new(2, why));
        }
        self.checked()
    }

    /// The prefix, which may be empty.
    pub fn any_prefix(&self) -> Result<String, Failure> {
        if self.prefix.is_empty() { Ok(String::new()) } else { self.checked() }
    }

    fn checked(&self) -> Result<String, Failure> {
        let wrong = |part: &str| matches!(part, "" | "." | "..");
        match self.prefix.split('/').any(wrong) {
            true => {
                Err(Failure::new(2, "ozone freon: --prefix is no relative path without . or .."))
            }
            false => Ok(self.prefix.clone()),
        }
    }
}

/// Where several clients work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Spread {
    /// All in one directory.
    None,
    /// Each in a directory of its own of one bucket.
    Directories,
    /// Each in a bucket of its own: `bucket1-0`, `bucket1-1`, …; with --path: each in its directory as it is.
    Buckets,
}

/// Where the load goes.
#[derive(Args, Clone, Debug)]
pub struct PlaceArgs {
    #[command(flatten)]
    pub metad: MetadAddress,
    /// Name of the volume which contains the test data.
    #[arg(short, long, default_value = "vol1")]
    pub volume: String,
    /// Name of the bucket which contains the test data.
    #[arg(short, long, default_value = "bucket1")]
    pub bucket: String,
    /// Number of clients, each with a session of its own.
    #[arg(
        long,
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1024),
    )]
    pub clients: u16,
    /// A directory of a mount, instead of sessions; several times: one client each.
    #[arg(short = 'r', long, alias = "rpath", value_name = "DIR", conflicts_with = "clients")]
    pub path: Vec<PathBuf>,
    /// Where several clients work [default: directories].
    #[arg(long, value_enum)]
    pub spread: Option<Spread>,
    /// The directories may be of any filesystem, for comparison.
    #[arg(long, requires = "path")]
    pub any_filesystem: bool,
    /// Dirty and cached data of each client together.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub memory: u64,
}

/// A number of bytes: `10KB`, `4096`, `1G`; units are powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|err| err.to_string())
}

/// `500ms`, `30s`, `5m`, `1h`, `7d`; a plain number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let millis = match &text[digits.len()..] {
        "ms" => Some(1),
        "" | "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let product = number.zip(millis).and_then(|(number, millis)| number.checked_mul(millis));
    let wrong = || format!("'{text}' is no duration: write 30s, 5m or 1h");
    product.map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        place: PlaceArgs,
    }

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace()))
    }

    #[test]
    fn words_are_ozones() {
        let line = parse("-n 5 -t 3 -p run -v v -b b --duration 5m -f").unwrap();
        let plan = line.run.plan("x", 1).unwrap();
        assert_eq!((plan.number, plan.threads, plan.fail_at_end), (5, 3, true));
        assert_eq!(plan.duration, Some(Duration::from_secs(300)));
        assert_eq!(line.run.known_prefix().unwrap(), "run");
        assert_eq!((line.place.volume.as_str(), line.place.bucket.as_str()), ("v", "b"));
        let line = parse("--number-of-tests 7 --thread 2 --path /a --rpath /b -r /c").unwrap();
        assert_eq!(line.place.path.len(), 3);
        let line = parse("").unwrap();
        assert_eq!(line.run.plan("x", 1).unwrap().threads, 10);
        assert_eq!(line.run.plan("x", 16).unwrap().threads, 16);
        assert_eq!((line.place.volume.as_str(), line.place.bucket.as_str()), ("vol1", "bucket1"));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "-n 0",
            "-n -1",
            "-t 0",
            "-t 5000",
            "--duration x",
            "--duration 5y",
            "--clients 0",
            "--path /a --clients 2",
            "--memory big",
            "--any-filesystem",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let few = parse("-t 3").unwrap().run.plan("x", 4).unwrap_err();
        assert_eq!(few.status, 2);
        for wrong in ["/a", "a//b", "../a", "a/."] {
            assert!(parse(&format!("-p {wrong}")).unwrap().run.new_prefix().is_err(), "{wrong}");
        }
        assert!(parse("").unwrap().run.known_prefix().is_err());
    }

    #[test]
    fn a_prefix_that_is_not_given_is_a_new_one() {
        let args = parse("").unwrap().run;
        let (one, two) = (args.new_prefix().unwrap(), args.new_prefix().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), PREFIX_LENGTH);
        assert!(one.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{one}");
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(size("10KB"), Ok(10_240));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        assert!(duration("99999999999999999999s").is_err() && duration("s").is_err());
    }
}
