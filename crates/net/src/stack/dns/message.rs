//! DNS messages, as far as a relay reads and writes them (RFC 1035 §4).

/// The length of the header, in bytes (RFC 1035 §4.1.1, as are its bits and codes).
const HEADER_LEN: usize = 12;
/// In the third byte: this is a response.
const RESPONSE: u8 = 0x80;
/// In the third byte: recursion is desired.
const RECURSION_DESIRED: u8 = 0x01;
/// In the fourth byte: recursion is available.
const RECURSION_AVAILABLE: u8 = 0x80;
/// Response code: the server failed.
const SERVER_FAILURE: u8 = 2;
/// Response code: the server does not know such queries.
const NOT_IMPLEMENTED: u8 = 4;
/// Response code: the server will not.
const REFUSED: u8 = 5;
/// The longest name, in bytes (RFC 1035 §2.3.4).
const MAX_NAME_LEN: usize = 255;

/// The identifier of a query; `None` when the message is none.
pub(crate) fn query_identifier(message: &[u8]) -> Option<[u8; 2]> {
    let header = message.get(..HEADER_LEN)?;
    (header[2] & RESPONSE == 0).then(|| [header[0], header[1]])
}

/// Whether a message is a response with the identifier.
pub(crate) fn is_answer(message: &[u8], identifier: [u8; 2]) -> bool {
    message
        .get(..HEADER_LEN)
        .is_some_and(|header| header[..2] == identifier && header[2] & RESPONSE != 0)
}

/// Whether a response only says that its server will not or cannot help.
pub(crate) fn is_other_servers_business(response: &[u8]) -> bool {
    response
        .get(3)
        .is_some_and(|byte| matches!(byte & 0x0f, SERVER_FAILURE | NOT_IMPLEMENTED | REFUSED))
}

/// The response that says that no server could be asked.
pub(crate) fn failure(query: &[u8]) -> Vec<u8> {
    let question = Question::parse(query);
    let mut response = response_header(query, SERVER_FAILURE, question.is_some(), 0);
    if let Some(question) = question {
        response.extend_from_slice(question.raw);
    }
    response
}

fn response_header(query: &[u8], code: u8, question: bool, answers: u16) -> Vec<u8> {
    let mut header = query.get(..4).unwrap_or(&[0; 4]).to_vec();
    header[2] = RESPONSE | (header[2] & (0x78 | RECURSION_DESIRED));
    header[3] = RECURSION_AVAILABLE | code;
    header.extend_from_slice(&u16::from(question).to_be_bytes());
    header.extend_from_slice(&answers.to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    header
}

/// The question of a query that has exactly one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    query: &'a [u8],
    /// Name, type and class, as they stand in the query.
    raw: &'a [u8],
    /// The name in lower case, without the last dot.
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

impl<'a> Question<'a> {
    /// Reads the question of a standard query; `None` for everything else, which others can answer.
    pub(crate) fn parse(query: &'a [u8]) -> Option<Question<'a>> {
        query_identifier(query)?;
        let opcode = query[2] & 0x78;
        if opcode != 0 || query[4..6] != [0, 1] {
            return None;
        }
        let rest = &query[HEADER_LEN..];
        let mut name = String::new();
        let mut at = 0;
        loop {
            let length = usize::from(*rest.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // The two highest bits are set in pointers, which questions have no use for.
            if length > 63 || at + length > MAX_NAME_LEN {
                return None;
            }
            let label = rest.get(at..at + length)?;
            if !name.is_empty() {
                name.push('.');
            }
            for byte in label {
                if !byte.is_ascii_graphic() || *byte == b'.' {
                    return None;
                }
                name.push(byte.to_ascii_lowercase().into());
            }
            at += length;
        }
        let end = at + 4;
        let raw = rest.get(..end)?;
        Some(Question {
            query,
            raw,
            name,
            kind: u16::from_be_bytes([raw[at], raw[at + 1]]),
            class: u16::from_be_bytes([raw[at + 2], raw[at + 3]]),
        })
    }

    /// The response with these records' data, all of the type and class that were asked for.
    pub(crate) fn answer(&self, records: &[Vec<u8>], ttl: u32) -> Vec<u8> {
        /// A pointer to the name in the question, which follows the header (RFC 1035 §4.1.4).
        const NAME: [u8; 2] = [0xc0, HEADER_LEN as u8];
        let mut response = response_header(self.query, 0, true, records.len() as u16);
        response.extend_from_slice(self.raw);
        for data in records {
            response.extend_from_slice(&NAME);
            response.extend_from_slice(&self.kind.to_be_bytes());
            response.extend_from_slice(&self.class.to_be_bytes());
            response.extend_from_slice(&ttl.to_be_bytes());
            response.extend_from_slice(&(data.len() as u16).to_be_bytes());
            response.extend_from_slice(data);
        }
        response
    }
}

#[cfg(test)]
pub(crate) fn query_for(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn a_question_is_read_and_a_failure_repeats_it() {
        let query = query_for("WWW.Example.org", 1);
        let question = Question::parse(&query).unwrap();
        assert_eq!(question.name, "www.example.org");
        assert_eq!((question.kind, question.class), (1, 1));
        let failure = failure(&query);
        assert!(is_answer(&failure, [0xab, 0xcd]));
        assert!(is_other_servers_business(&failure));
        assert_eq!(failure[4..12], [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(failure[12..], query[12..]);
        assert_eq!(query_identifier(&failure), None);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = Random::new(5);
        for _ in 0..200_000 {
            let length = random.below(64);
            let mut bytes = random.bytes(length);
            if bytes.len() > 6 && random.below(2) == 0 {
                bytes[2] = 1;
                bytes[4] = 0;
                bytes[5] = 1;
            }
            query_identifier(&bytes);
            if let Some(question) = Question::parse(&bytes) {
                question.answer(&[vec![1, 2, 3, 4]], 1);
            }
            failure(&bytes);
        }
    }
}
