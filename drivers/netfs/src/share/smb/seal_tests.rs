// SPDX-License-Identifier: Apache-2.0
//! Against the examples that Microsoft has published, and against the other implementation in crate `smb2`.

use smb2::{
    crypto::{
        encryption::{decrypt_message, encrypt_message},
        kdf::derive_session_keys,
        signing::{sign_message, verify_signature},
    },
    types::{Dialect, SessionId},
};

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ascii");
        u8::from_str_radix(pair, 16).expect("hexadecimal digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn session(id: u64, signing: (SigningAlgorithm, &[u8]), [ours, theirs]: [&[u8]; 2]) -> Session {
    Session {
        session_id: SessionId(id),
        signing_key: signing.1.to_vec(),
        encryption_key: Some(ours.to_vec()),
        decryption_key: Some(theirs.to_vec()),
        signing_algorithm: signing.0,
        should_sign: true,
        should_encrypt: false,
    }
}

const CMAC: SigningAlgorithm = SigningAlgorithm::AesCmac;

#[test]
fn keys_are_derived_as_in_the_published_examples() {
    let keys =
        derive_session_keys(&hex("7CD451825D0450D235424E44BA6E78CC"), Dialect::Smb3_0, None, 128);
    assert_eq!(keys.signing_key, hex("0B7E9C5CAC36C0F6EA9AB275298CEDCE"));
    assert_eq!(keys.encryption_key, hex("FAD27796665B313EBB578F388632B4F7"));
    assert_eq!(keys.decryption_key, hex("B0F0427F7CEB416D1D9DCC0CD4F99447"));
    let hash = hex("0DD13628CC3ED218EF9DF9772D436D0887AB9814BFAE63A80AA845F36909DB79
        28622DDDAD522D9751640A459762C5A9D6BB084CBB3CE6BDADEF5D5BCE3C6C01");
    let keys = derive_session_keys(
        &hex("270E1BA896585EEB7AF3472D3B4C75A7"),
        Dialect::Smb3_1_1,
        hash.first_chunk(),
        128,
    );
    assert_eq!(keys.signing_key, hex("73FE7A9A77BEF0BDE49C650D8CCB5F76"));
    assert_eq!(keys.encryption_key, hex("629BCBC54422A0F572B97F45989B6073"));
    assert_eq!(keys.decryption_key, hex("E2AF0DCEFAC68DA71A0DFBD0D1350D74"));
}

#[test]
fn a_published_signature_is_accepted_and_nothing_like_it() {
    let key = hex("73FE7A9A77BEF0BDE49C650D8CCB5F76");
    let seal = Seal::new(&session(0, (CMAC, &key), [&[], &[]]), None).expect("keys");
    let answer = hex("FE534D4240000100000000000100800009000000000000000300000000000000
        FFFE0000000000001900000000100000EBE146DA120BA25FC3376A49DFE31BC1
        0900000048001D00A11B3019A0030A0100A3120410010000003B453CDC352416
        4200000000");
    assert!(seal.is_signed(&mut answer.clone()));
    for index in 0..answer.len() {
        let mut changed = answer.clone();
        changed[index] ^= 1;
        assert!(!seal.is_signed(&mut changed), "byte {index}");
    }
    let mut unsigned = answer.clone();
    unsigned[SIGNATURE].fill(0);
    assert!(!seal.is_signed(&mut unsigned));
    assert!(!seal.is_signed(&mut answer[..63].to_vec()), "there is no signature in it");
    // The signature of an answer is told apart from that of a question by GMAC alone.
    let mut again = answer.clone();
    seal.sign(&mut again, &[]).expect("signed");
    assert_eq!(again, answer);
}

/// A published conversation: the cipher, both keys, session, nonce of the question, question, its frame, the frame of the
/// answer and the answer.
struct Example {
    cipher: Cipher,
    ours: &'static str,
    theirs: &'static str,
    session: u64,
    question: &'static str,
    sent: &'static str,
    came: &'static str,
    answer: &'static str,
}

const EXAMPLES: [Example; 2] = [
    Example {
        cipher: Cipher::Aes128Ccm,
        ours: "261B72350558F2E9DCF613070383EDBF",
        theirs: "8FE2B57EC34D2DB5B1A9727F526BBDB5",
        session: 0x0008_E400_1400_0011,
        question: "FE534D4240000100000000000900400008000000000000000400000000000000
            FFFE0000010000001100001400E4080000000000000000000000000000000000
            3100700017000000000000000000000015010000390000020100000039020000
            00000000000000007000000000000000536D623320656E6372797074696F6E20
            74657374696E67",
        sent: "FD534D4281A286535415445DAE393921E44FA42E66E69A111892584FB5ED524A
            744DA3EE87000000000001001100001400E4080025C8FEE16605A437832D1CD5
            2DA9F4645333482A175FE5384563F45FCDAFAEF38BC62BA4D5C62897996625A4
            4C29BE5658DE2E6117585779E7B59FFD971278D08580D7FA899E410E910EABF5
            AA1DB43050B33B49182637759AC15D84BFCDF5B6B238993C0F4CF4D6012023F6
            C627297075D84B7803912D0A9639634453595EF3E33FFE4E7AC2AB",
        came: "FD534D42A6015530A18F6D9AFFE22AFAE8E66484860000000000000011000014
            00E4080050000000000001001100001400E40800DBF46435C5F14169293CE079
            E344479BF670227E49873F458672C3098DAC467DD5809F369D67409166515787
            1483E01F7BECD02064EAC3E235F913668BBC2F097980D4B378F1993EFF6E60D1
            77309E5B",
        answer: "FE534D4240000100000000000900210009000000000000000400000000000000
            FFFE0000010000001100001400E4080000000000000000000000000000000000
            11000000170000000000000000000000",
    },
    Example {
        cipher: Cipher::Aes128Gcm,
        ours: "A2F5E80E5D59103034F32E52F698E5EC",
        theirs: "748C50868C90F302962A5C35F5F9A8BF",
        session: 0x0000_1000_0000_0025,
        question: "FE534D4240000100000000000900010008000000000000000500000000000000
            FFFE000001000000250000000010000000000000000000000000000000000000
            3100700017000000000000000000000006000000040000000100000004000000
            00000000000000007000000000000000536D623320656E6372797074696F6E20
            74657374696E67",
        sent: "FD534D42BD73D97D2BC9001BCAFAC0FDFF5FEEBCC7D6822D269CAF48904C664C
            0000000087000000000001002500000000100000
            6ECDD2A7AFC7B47763057A041B8FD4DAFFE990B70C9E09D36C084E02D14EF247
            F8BDE38ACF6256F8B1D3B56F77FBDEB312FEA5E92CBCC1ED8FB2EBBFAA75E49A
            4A394BB44576545567C24D4C014D47C9FBDFDAFD2C4F9B72F8D256452620A299
            F48E29E53D6B61D1C13A19E91AF013F00D17E3ABC2FC3D36C8C1B6B93973253852DBD442E46EE8",
        came: "FD534D42ACBE1CB7ED343ADF1725EF144D90D4B0E06831DD2E8EB7B400000000
            0000000050000000000001002500000000100000
            26BBBF949983A6C1C796559D0F2C510CB651D1F7B6AC8DED32A2A0B8F2D793A8
            15C6F6B848D69767A215841A42D400AE6DDB5F0B44173A014973321FDD7950DA
            6179159B82E03C9E18A050FF0EA1C967",
        answer: "FE534D4240000100000000000900010001000000000000000500000000000000
            FFFE000001000000250000000010000000000000000000000000000000000000
            11000000170000000000000000000000",
    },
];

#[test]
fn published_messages_are_encrypted_and_decrypted() {
    for example in EXAMPLES {
        let (ours, theirs) = (hex(example.ours), hex(example.theirs));
        let keys = session(example.session, (CMAC, &[7; 16]), [&ours, &theirs]);
        let seal = Seal::new(&keys, Some(example.cipher)).expect("keys");
        let mut came = hex(example.came);
        seal.decrypt(&mut came).expect("the server's message");
        assert_eq!(came[ENVELOPE..], hex(example.answer));

        // Ours takes another nonce; with theirs it makes the same bytes.
        let sent = hex(example.sent);
        let mut message = hex(example.question);
        let nonce = sent[NONCE..].first_chunk().expect("a nonce");
        let secrecy = seal.secrecy.as_ref().expect("keys");
        let tag = secrecy.ours.encrypt(nonce, &sent[NONCE..ENVELOPE], &mut message);
        assert_eq!(message, sent[ENVELOPE..]);
        assert_eq!(tag.expect("encrypted"), sent[TAG]);

        let came = hex(example.came);
        for index in 0..came.len() {
            let mut changed = came.clone();
            changed[index] ^= 1;
            assert!(seal.decrypt(&mut changed).is_none(), "byte {index}");
        }
        assert!(seal.decrypt(&mut came[..came.len() - 1].to_vec()).is_none());
        assert!(seal.decrypt(&mut came[..ENVELOPE - 1].to_vec()).is_none());
    }
}

fn message(id: u64, len: usize) -> Vec<u8> {
    let mut message: Vec<u8> = (0..len).map(|index| (index * 7) as u8).collect();
    message[..4].copy_from_slice(b"\xfeSMB");
    message[12..14].copy_from_slice(&[8, 0]);
    message[ID..ID + 8].copy_from_slice(&id.to_le_bytes());
    message[SIGNATURE].fill(0);
    message
}

#[test]
fn signatures_are_what_the_crate_would_have_made() {
    for algorithm in [SigningAlgorithm::HmacSha256, CMAC, SigningAlgorithm::AesGmac] {
        let key = [9; 16];
        let seal = Seal::new(&session(5, (algorithm, &key), [&[], &[]]), None).expect("keys");
        for (id, len) in [(1, 64), (u64::MAX - 1, 65), (77, 80), (3, 4096), (4, 100_003)] {
            let (mut one, mut other) = (message(id, len), message(id, len));
            seal.sign(&mut one, &[]).expect("signed");
            sign_message(&mut other, &key, algorithm, id, false).expect("signed");
            assert_eq!(one, other, "{algorithm:?} of {len} bytes");
            // The payload may lie elsewhere, wherever it begins.
            for split in [64, 65, 79, 80, 112, len].into_iter().filter(|split| *split <= len) {
                let (mut head, payload) = (one[..split].to_vec(), &one[split..]);
                seal.sign(&mut head, payload).expect("signed");
                assert_eq!(head, one[..split], "{algorithm:?} of {len} bytes, {split} apart");
            }
            seal.sign_as_server(&mut one);
            verify_signature(&one, &key, algorithm, id, false).expect("signed");
            assert!(seal.is_signed(&mut one.clone()));
            // What we sent does not come back as an answer, where the algorithm can tell.
            let reflected = seal.is_signed(&mut other);
            assert_eq!(reflected, algorithm != SigningAlgorithm::AesGmac);
            *one.last_mut().expect("bytes") ^= 0x80;
            assert!(!seal.is_signed(&mut one));
        }
    }
}

#[test]
fn frames_are_what_the_crate_understands_and_no_nonce_is_used_twice() {
    use Cipher as C;
    for (cipher, len) in
        [(C::Aes128Ccm, 16), (C::Aes128Gcm, 16), (C::Aes256Ccm, 32), (C::Aes256Gcm, 32)]
    {
        let (ours, theirs) = (vec![3; len], vec![4; len]);
        let keys = session(11, (CMAC, &[7; 16]), [&ours, &theirs]);
        let seal = Seal::new(&keys, Some(cipher)).expect("keys");
        let mut nonces = std::collections::HashSet::new();
        for len in [64, 65, 1000, 100_000] {
            let plain = message(1, len);
            let mut frame = [vec![0; ENVELOPE], plain.clone()].concat();
            seal.encrypt(&mut frame).expect("encrypted");
            let (envelope, message) = frame.split_at(ENVELOPE);
            let read = decrypt_message(envelope, message, &ours, cipher).expect("decrypted");
            assert_eq!(read, plain);
            assert!(nonces.insert(envelope[NONCE..NONCE + 11].to_vec()), "a nonce came again");
            // The login counts in the first eight bytes and leaves the rest zero.
            assert_ne!(envelope[NONCE + 8..NONCE + 11], [0; 3]);

            let (mut envelope, message) =
                encrypt_message(&plain, &theirs, cipher, &[5; 16], 11).expect("encrypted");
            envelope.extend(message);
            seal.decrypt(&mut envelope).expect("decrypted");
            assert_eq!(envelope[ENVELOPE..], plain);
        }
        let (mut foreign, message) =
            encrypt_message(&message(1, 64), &theirs, cipher, &[5; 16], 12).expect("encrypted");
        foreign.extend(message);
        assert!(seal.decrypt(&mut foreign).is_none(), "it is of another session");
    }
}

#[test]
fn keys_of_a_wrong_length_are_refused() {
    let wrong = session(1, (CMAC, &[1; 15]), [&[], &[]]);
    assert!(Seal::new(&wrong, None).is_err());
    let wrong = session(1, (CMAC, &[1; 16]), [&[1; 16], &[1; 17]]);
    assert!(Seal::new(&wrong, Some(Cipher::Aes128Gcm)).is_err());
}
