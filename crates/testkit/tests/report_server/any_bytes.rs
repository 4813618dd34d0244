//! What a client may send: anything.

use proptest::{collection::vec, prelude::*};
use towpath_testkit::report_server::{
    Report,
    ntlm::{self, Authenticate, FileTime},
    spnego,
};

proptest! {
    #[test]
    fn messages_of_any_bytes_are_refused_and_nothing_else(mut bytes in vec(any::<u8>(), 0..200), kind in 0u8..5) {
        let _any = (ntlm::kind(&bytes), spnego::read(&bytes), Authenticate::parse(&bytes).is_ok());
        let _any = ntlm::challenge(&bytes, &[0; 8], "CORP", "REPORTS", FileTime::now());
        // And with the right beginning, so that the rest is looked at.
        let mut message = b"NTLMSSP\0".to_vec();
        message.extend([kind, 0, 0, 0]);
        message.append(&mut bytes);
        if let Ok(answer) = Authenticate::parse(&message) {
            prop_assert!(answer.verify("secret", &[0; 8], [&[], &[], &message], None, false).is_err());
        }
    }

    #[test]
    fn windows_of_a_log_join_wherever_they_are_cut(per_hour in 1u64..5000, cuts in vec(0i64..7_200_000, 0..5)) {
        let begin = jiff::civil::date(2026, 3, 1).at(0, 0, 0, 0);
        let at = |millis: i64| begin.saturating_add(jiff::SignedDuration::from_millis(millis));
        let mut cuts = [vec![0, 7_200_000], cuts].concat();
        cuts.sort_unstable();
        let report = Report::production_log(per_hour);
        let rows = |from, to| report.csv(at(from), at(to)).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        let parts: Vec<_> = cuts.windows(2).flat_map(|cut| rows(cut[0], cut[1])).collect();
        prop_assert_eq!(parts.len() as u64, 2 * per_hour);
        prop_assert!(parts == rows(0, 7_200_000), "cut at {:?}", cuts);
    }
}
