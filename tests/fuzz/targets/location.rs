//! Locations of asynchronous commands, and correlation ids, as clients and services send them back:
//! what can be read is exactly what was written, and for its sender only.
#![no_main]

use sluicegate_fuzz::command::{CommandLocation, IdempotencyHash};
use sluicegate_fuzz::model::{CorrelationId, Fingerprint, Identity, UnixMillis};

const ROUTE: &str = "pay";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(id) = CorrelationId::parse(data) {
        assert_eq!(id.to_string().as_bytes(), data, "one id has one text");
    }
    let (ann, bob) = (Identity::new("i", "ann"), Identity::new("i", "bob"));
    if let Ok(text) = std::str::from_utf8(data) {
        // Must not panic. It may find a token: the fuzzer sees the proof that is compared.
        let _found = CommandLocation::read(text, ROUTE, &ann);
    }
    let Some(token) = token(data, &ann) else {
        return;
    };
    let own = CommandLocation::read(&token, ROUTE, &ann).expect("its sender reads it");
    assert_eq!(CommandLocation::read(&token, ROUTE, &bob), None);
    assert_eq!(CommandLocation::read(&token, ROUTE, &Identity::ANONYMOUS), None);
    assert_eq!(CommandLocation::read(&token, "other", &ann), None);
    // Any other text is no location: the last bytes say where the token is changed, and how.
    let &[.., at, byte] = data else { return };
    let mut other = token.clone().into_bytes();
    let at = usize::from(at) % (other.len() + 1);
    if at == other.len() {
        other.push(byte);
    } else {
        other[at] = byte;
    }
    if let Ok(other) = String::from_utf8(other)
        && other != token
    {
        let read = CommandLocation::read(&other, ROUTE, &ann);
        assert_eq!(read, None, "{other} reads as {token} does: {own:?}");
    }
});

/// The token of the command that the first bytes of the input are.
fn token(data: &[u8], identity: &Identity) -> Option<String> {
    let (hash, rest) = data.split_first_chunk()?;
    let (fingerprint, rest) = rest.split_first_chunk()?;
    let (seconds, _) = rest.split_first_chunk()?;
    let since = UnixMillis(i64::from(u32::from_be_bytes(*seconds)) * 1000);
    let location = CommandLocation::new(IdempotencyHash(*hash), Fingerprint(*fingerprint), since);
    Some(location.token(ROUTE, identity))
}
