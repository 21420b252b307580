//! `strftime_now`: the date and time in English, whatever locale the host has set.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::ErrorKind;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment, as a calendar and a clock on the wall show it.
struct WallTime {
    year: i64,
    /// From 1.
    month: i64,
    /// From 1.
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    /// Sunday is 0.
    weekday: i64,
    /// From 1.
    day_of_year: i64,
}

/// Python's `datetime.now().strftime(format)` in the C locale; `now` as in [`super::RenderOptions::now`].
pub(super) fn strftime(format: &str, now: Option<i64>) -> Result<String, minijinja::Error> {
    let time = match now {
        Some(seconds) => utc(seconds),
        None => {
            let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let seconds = i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX);
            local(seconds).unwrap_or_else(|| utc(seconds))
        }
    };
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        match characters.next() {
            // Glibc's mark for "no leading zero".
            Some('-') => {
                let number = directive(&time, characters.next())?;
                let digits = number.trim_start_matches(['0', ' ']);
                text += if digits.is_empty() { "0" } else { digits };
            }
            code => text += &directive(&time, code)?,
        }
    }
    Ok(text)
}

fn directive(time: &WallTime, code: Option<char>) -> Result<String, minijinja::Error> {
    let hour12 = (time.hour + 11) % 12 + 1;
    let text = match code {
        Some('a') => name(&DAYS, time.weekday).chars().take(3).collect(),
        Some('A') => name(&DAYS, time.weekday).to_owned(),
        Some('b' | 'h') => name(&MONTHS, time.month - 1).chars().take(3).collect(),
        Some('B') => name(&MONTHS, time.month - 1).to_owned(),
        Some('d') => format!("{:02}", time.day),
        Some('e') => format!("{:2}", time.day),
        Some('D') => format!("{:02}/{:02}/{:02}", time.month, time.day, time.year.rem_euclid(100)),
        Some('F') => format!("{}-{:02}-{:02}", time.year, time.month, time.day),
        Some('H') => format!("{:02}", time.hour),
        Some('I') => format!("{hour12:02}"),
        Some('j') => format!("{:03}", time.day_of_year),
        Some('m') => format!("{:02}", time.month),
        Some('M') => format!("{:02}", time.minute),
        Some('p') => (if time.hour < 12 { "AM" } else { "PM" }).to_owned(),
        Some('R') => format!("{:02}:{:02}", time.hour, time.minute),
        Some('S') => format!("{:02}", time.second),
        Some('T') => format!("{:02}:{:02}:{:02}", time.hour, time.minute, time.second),
        Some('w') => time.weekday.to_string(),
        Some('y') => format!("{:02}", time.year.rem_euclid(100)),
        Some('Y') => time.year.to_string(),
        Some('%') => "%".to_owned(),
        other => {
            let code = other.map_or(String::new(), String::from);
            let detail = format!("strftime_now: the directive %{code} is not supported");
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, detail));
        }
    };
    Ok(text)
}

fn name(names: &[&'static str], number: i64) -> &'static str {
    usize::try_from(number).ok().and_then(|number| names.get(number).copied()).unwrap_or_default()
}

/// The proleptic Gregorian calendar, counted in years that start in March, so that the leap day comes last.
fn utc(seconds: i64) -> WallTime {
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Day 0 is 1 March of the year 0; 400 years have 146,097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_march_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, months have 31, 30, 31, 30, 31 days, again and again: 153 in five.
    let march_month = (5 * day_of_march_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = 400 * era + year_of_era + i64::from(month <= 2);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let day_of_year = if month > 2 { day_of_march_year + 60 + i64::from(leap) } else { day_of_march_year - 305 };
    WallTime {
        year,
        month,
        day: day_of_march_year - (153 * march_month + 2) / 5 + 1,
        hour: second_of_day / 3_600,
        minute: second_of_day / 60 % 60,
        second: second_of_day % 60,
        weekday: (days + 4).rem_euclid(7),
        day_of_year,
    }
}

/// The host's time zone, where the system tells it.
#[cfg(unix)]
fn local(seconds: i64) -> Option<WallTime> {
    let seconds = libc::time_t::try_from(seconds).ok()?;
    // SAFETY: `tm` is plain data for which zeros are valid; both pointers are to live locals, and `localtime_r`
    // writes only through the second.
    let time = unsafe {
        let mut time: libc::tm = std::mem::zeroed();
        (!libc::localtime_r(&seconds, &mut time).is_null()).then_some(time)
    }?;
    Some(wall_time(&time))
}

/// The host's time zone, where the system tells it.
#[cfg(windows)]
fn local(seconds: i64) -> Option<WallTime> {
    // SAFETY: as on Unix; the order of the parameters is the other way round, and 0 is success.
    let time = unsafe {
        let mut time: libc::tm = std::mem::zeroed();
        (libc::localtime_s(&mut time, &seconds) == 0).then_some(time)
    }?;
    Some(wall_time(&time))
}

#[cfg(not(any(unix, windows)))]
fn local(_seconds: i64) -> Option<WallTime> {
    None
}

#[cfg(any(unix, windows))]
fn wall_time(time: &libc::tm) -> WallTime {
    WallTime {
        year: i64::from(time.tm_year) + 1900,
        month: i64::from(time.tm_mon) + 1,
        day: i64::from(time.tm_mday),
        hour: i64::from(time.tm_hour),
        minute: i64::from(time.tm_min),
        second: i64::from(time.tm_sec),
        weekday: i64::from(time.tm_wday),
        day_of_year: i64::from(time.tm_yday) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_is_what_python_prints() {
        // datetime.fromtimestamp(…, timezone.utc).strftime(…)
        let all = "%a %A %b %B %d %e %D %F %H %I %j %m %M %p %R %S %T %w %y %Y %% %-d";
        for (seconds, expected) in [
            (
                0,
                "Thu Thursday Jan January 01  1 01/01/70 1970-01-01 00 12 001 01 00 AM 00:00 00 00:00:00 4 70 1970 % 1",
            ),
            (
                1_709_251_199,
                "Thu Thursday Feb February 29 29 02/29/24 2024-02-29 23 11 060 02 59 PM 23:59 59 23:59:59 4 24 2024 % 29",
            ),
            (
                1_735_646_400,
                "Tue Tuesday Dec December 31 31 12/31/24 2024-12-31 12 12 366 12 00 PM 12:00 00 12:00:00 2 24 2024 % 31",
            ),
            (
                4_107_542_400,
                "Mon Monday Mar March 01  1 03/01/00 2100-03-01 00 12 060 03 00 AM 00:00 00 00:00:00 1 00 2100 % 1",
            ),
        ] {
            assert_eq!(strftime(all, Some(seconds)).unwrap(), expected);
        }
    }

    #[test]
    fn the_calendar_agrees_with_a_day_by_day_count() {
        let (mut year, mut month, mut day, mut day_of_year) = (1970, 1, 1, 1);
        for days in 0..200_000 {
            let time = utc(days * 86_400);
            assert_eq!((time.year, time.month, time.day, time.day_of_year), (year, month, day, day_of_year));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            (day, day_of_year) = (day + 1, day_of_year + 1);
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year, day_of_year) = (1, year + 1, 1);
            }
        }
    }

    #[test]
    fn the_hosts_clock_gives_a_date() {
        let date = strftime("%Y-%m-%d", None).unwrap();
        assert!(date.len() == 10 && date.as_str() > "2024-01-01", "{date}");
    }

    #[test]
    fn an_unknown_directive_and_a_lone_percent_sign_are_errors() {
        assert_eq!(strftime("%-H %-M %-e", Some(0)).unwrap(), "0 0 1");
        for format in ["%Q", "50%", "%-"] {
            assert!(strftime(format, Some(0)).is_err(), "{format}");
        }
    }

    #[test]
    fn times_far_away_do_not_overflow() {
        for seconds in [i64::MIN, i64::MAX, -1] {
            assert!(strftime("%F %T", Some(seconds)).is_ok());
        }
    }
}
