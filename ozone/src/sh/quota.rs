//! Quotas as Ozone takes them: `10GB`, `5 TB`, plain numbers.

use clap::Args;

use crate::Failure;

/// Exit status of a quota that is none: Ozone finds out while it executes.
const REFUSED: u8 = 255;
const UNITS: [(&str, i64); 7] = [
    ("EB", 1 << 60),
    ("PB", 1 << 50),
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("KB", 1 << 10),
    ("B", 1),
];

/// Quotas to set; `None` leaves one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    pub bytes: Option<i64>,
    pub names: Option<i64>,
}

#[derive(Args, Clone, Debug)]
pub struct QuotaArgs {
    /// The most bytes, e.g. 10GB, 5TB or a plain number.
    #[arg(long, alias = "quota", value_name = "SIZE")]
    space_quota: Option<String>,
    /// The most names: of a volume its buckets, of a bucket its files and directories.
    #[arg(long, value_name = "NUMBER")]
    namespace_quota: Option<String>,
}

impl QuotaArgs {
    /// Error: a text that is no quota.
    pub fn parse(&self) -> Result<Quotas, Failure> {
        Ok(Quotas {
            bytes: self.space_quota.as_deref().map(bytes).transpose()?,
            names: self.namespace_quota.as_deref().map(names).transpose()?,
        })
    }

    /// As [`QuotaArgs::parse`]. Error also: nothing is to be set.
    pub fn parse_some(&self) -> Result<Quotas, Failure> {
        match self.parse()? {
            Quotas { bytes: None, names: None } => {
                Err(refused("At least one of the quota set flag is required."))
            }
            quotas => Ok(quotas),
        }
    }
}

#[derive(Args, Clone, Copy, Debug)]
pub struct ClearQuotaArgs {
    /// Clear the quota of bytes.
    #[arg(long, alias = "quota")]
    space_quota: bool,
    /// Clear the quota of names.
    #[arg(long)]
    namespace_quota: bool,
}

impl ClearQuotaArgs {
    /// The sign that there is none, for what is to be cleared. Error: nothing is.
    pub fn parse(self) -> Result<Quotas, Failure> {
        if !self.space_quota && !self.namespace_quota {
            return Err(refused("At least one of the quota clear flag is required."));
        }
        let clear = |set: bool| set.then_some(-1);
        Ok(Quotas { bytes: clear(self.space_quota), names: clear(self.namespace_quota) })
    }
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::new(REFUSED, why)
}

fn bytes(text: &str) -> Result<i64, Failure> {
    let compact: String = text.split_whitespace().collect::<String>().to_ascii_uppercase();
    let unit = UNITS.iter().find_map(|(unit, size)| Some((compact.strip_suffix(unit)?, *size)));
    let (number, size) = unit.unwrap_or((&compact, 1));
    let no_number = |_| {
        refused(format!(
            "{text} is invalid. The quota value should be a positive integer with byte \
             numeration(B, KB, MB, GB and TB)"
        ))
    };
    let number: i64 = number.parse().map_err(no_number)?;
    if number <= 0 {
        return Err(refused(format!("Invalid value for space quota: {number}")));
    }
    number.checked_mul(size).ok_or_else(|| refused(format!("{text} is more than a quota can be")))
}

fn names(text: &str) -> Result<i64, Failure> {
    let number: i64 = text.parse().map_err(|_| {
        refused(format!("{text} is invalid. The quota value should be a positive integer"))
    })?;
    if number <= 0 {
        return Err(refused(format!("Invalid value for namespace quota: {number}")));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        let good = [
            ("1", 1),
            ("10B", 10),
            ("10kb", 10 << 10),
            ("3 MB", 3 << 20),
            ("10GB", 10 << 30),
            ("5TB", 5 << 40),
            ("2Pb", 2 << 50),
            ("7EB", 7 << 60),
            ("+5", 5),
        ];
        for (text, value) in good {
            assert_eq!(bytes(text).ok(), Some(value), "{text}");
        }
        for wrong in ["", "0", "0GB", "-1", "1.5GB", "GB", "10G", "8EB", "x", "1 0x"] {
            assert_eq!(bytes(wrong).unwrap_err().status, 255, "{wrong}");
        }
        assert_eq!(bytes("0GB").unwrap_err().text, "Invalid value for space quota: 0");
    }

    #[test]
    fn names_are_plain_numbers() {
        assert_eq!(names("5").ok(), Some(5));
        for wrong in ["", "0", "-1", "5GB"] {
            assert_eq!(names(wrong).unwrap_err().status, 255, "{wrong}");
        }
    }
}
