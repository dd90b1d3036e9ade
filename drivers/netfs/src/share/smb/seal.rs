// SPDX-License-Identifier: Apache-2.0
//! Signing and encrypting messages where they lie in memory.

use aes::{Aes128, Aes256, cipher::BlockCipherEncrypt};
use ccm::{
    Ccm, KeyInit,
    aead::{AeadInOut, inout::InOutBuf},
    consts::{U11, U16},
};
use cmac::{Cmac, Mac};
use ghash::{GHash, universal_hash::UniversalHash};
use ring::{aead, hmac};
use smb2::{
    client::session::Session,
    crypto::{encryption::Cipher, signing::SigningAlgorithm},
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Fault, internal};

/// Bytes before an encrypted message: who it is from, its nonce, its length and its tag.
pub(super) const ENVELOPE: usize = 52;
/// How an encrypted message begins.
pub(super) const ENCRYPTED: [u8; 4] = *b"\xfdSMB";
/// Where the tag is in the envelope.
const TAG: std::ops::Range<usize> = 4..20;
/// Where the nonce begins, and with it everything of the envelope that is vouched for.
const NONCE: usize = 20;
/// Where the envelope has the message's length.
const LENGTH: usize = 36;
/// Where it says that it is one.
const FLAGS: usize = 42;
/// Where it has the session.
const SESSION: usize = 44;
/// Bytes of a block of the ciphers.
const BLOCK: usize = 16;
/// Where a message's header has its number.
const ID: usize = 24;
/// Where it has its signature.
const SIGNATURE: std::ops::Range<usize> = 48..64;
/// In the nonces of this connection, what keeps them apart from those that its login has used with the same key.
const AFTER_LOGIN: u8 = 1;

/// Who made a signature.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// The keys of a session.
pub(super) struct Seal {
    session: u64,
    signing: Signing,
    secrecy: Option<Secrecy>,
}

enum Signing {
    Hmac(hmac::Key),
    Cmac(Box<Cmac<Aes128>>),
    Gmac(Box<Gmac>),
}

/// GCM that only vouches: what is signed may lie in two places.
struct Gmac {
    cipher: Aes128,
    hash: GHash,
}

struct Secrecy {
    ours: Crypt,
    theirs: Crypt,
    /// Messages that were encrypted: no nonce is used twice.
    count: AtomicU64,
}

enum Crypt {
    Gcm(Box<aead::LessSafeKey>),
    Ccm128(Box<Ccm<Aes128, U16, U11>>),
    Ccm256(Box<Ccm<Aes256, U16, U11>>),
}

fn bad_key() -> Fault {
    internal("a key of the session has a wrong length").into()
}

impl Signing {
    fn new(algorithm: SigningAlgorithm, key: &[u8]) -> Result<Self, Fault> {
        Ok(match algorithm {
            SigningAlgorithm::HmacSha256 => Self::Hmac(hmac::Key::new(hmac::HMAC_SHA256, key)),
            SigningAlgorithm::AesCmac => {
                let mac = <Cmac<Aes128> as KeyInit>::new_from_slice(key);
                Self::Cmac(Box::new(mac.map_err(|_| bad_key())?))
            }
            SigningAlgorithm::AesGmac => Self::Gmac(Box::new(Gmac::new(key)?)),
        })
    }

    /// The signature of a message whose signature's place is zero, and which goes on in `payload`.
    fn of(&self, message: &[u8], payload: &[u8], side: Side) -> Option<[u8; 16]> {
        match self {
            Self::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                context.update(message);
                context.update(payload);
                context.sign().as_ref().first_chunk().copied()
            }
            Self::Cmac(mac) => {
                let mut mac = mac.as_ref().clone();
                mac.update(message);
                mac.update(payload);
                mac.finalize().into_bytes().as_slice().first_chunk().copied()
            }
            Self::Gmac(gmac) => {
                let mut nonce = [0; 12];
                nonce[..8].copy_from_slice(message.get(ID..ID + 8)?);
                nonce[8] = u8::from(side == Side::Server);
                Some(gmac.tag(nonce, message, payload))
            }
        }
    }
}

impl Gmac {
    fn new(key: &[u8]) -> Result<Self, Fault> {
        let cipher = <Aes128 as KeyInit>::new_from_slice(key).map_err(|_| bad_key())?;
        let mut hash_key = ghash::Key::default();
        cipher.encrypt_block(&mut hash_key);
        Ok(Self { cipher, hash: GHash::new(&hash_key) })
    }

    fn tag(&self, nonce: [u8; 12], message: &[u8], payload: &[u8]) -> [u8; 16] {
        let mut hash = self.hash.clone();
        let (whole, rest) = message.split_at(message.len() / BLOCK * BLOCK);
        hash.update_padded(whole);
        let mut payload_left = payload;
        if !rest.is_empty() {
            let (filling, left) = payload.split_at(payload.len().min(BLOCK - rest.len()));
            let mut block = [0; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            block[rest.len()..rest.len() + filling.len()].copy_from_slice(filling);
            hash.update(&[block.into()]);
            payload_left = left;
        }
        hash.update_padded(payload_left);
        let mut lengths = [0; BLOCK];
        let bits = 8 * (message.len() + payload.len()) as u64;
        lengths[..8].copy_from_slice(&bits.to_be_bytes());
        hash.update(&[lengths.into()]);
        let mut mask = [0; BLOCK];
        mask[..12].copy_from_slice(&nonce);
        mask[BLOCK - 1] = 1;
        let mut mask = mask.into();
        self.cipher.encrypt_block(&mut mask);
        let mut tag: [u8; BLOCK] = hash.finalize().into();
        tag.iter_mut().zip(mask.as_slice()).for_each(|(tag, mask)| *tag ^= mask);
        tag
    }
}

impl Crypt {
    fn new(cipher: Cipher, key: &[u8]) -> Result<Self, Fault> {
        let gcm = |algorithm| {
            let key = aead::UnboundKey::new(algorithm, key).map_err(|_| bad_key())?;
            Ok(Self::Gcm(Box::new(aead::LessSafeKey::new(key))))
        };
        match cipher {
            Cipher::Aes128Gcm => gcm(&aead::AES_128_GCM),
            Cipher::Aes256Gcm => gcm(&aead::AES_256_GCM),
            Cipher::Aes128Ccm => {
                let cipher = Ccm::new_from_slice(key).map_err(|_| bad_key())?;
                Ok(Self::Ccm128(Box::new(cipher)))
            }
            Cipher::Aes256Ccm => {
                let cipher = Ccm::new_from_slice(key).map_err(|_| bad_key())?;
                Ok(Self::Ccm256(Box::new(cipher)))
            }
        }
    }

    fn encrypt(&self, nonce: &[u8; 16], vouched: &[u8], data: &mut [u8]) -> Option<[u8; 16]> {
        match self {
            Self::Gcm(key) => {
                let nonce = aead::Nonce::try_assume_unique_for_key(&nonce[..12]).ok()?;
                let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(vouched), data);
                tag.ok()?.as_ref().first_chunk().copied()
            }
            Self::Ccm128(cipher) => ccm_encrypt(&**cipher, nonce, vouched, data),
            Self::Ccm256(cipher) => ccm_encrypt(&**cipher, nonce, vouched, data),
        }
    }

    fn decrypt(
        &self,
        nonce: &[u8; 16],
        vouched: &[u8],
        tag: [u8; 16],
        data: &mut [u8],
    ) -> Option<()> {
        match self {
            Self::Gcm(key) => {
                let nonce = aead::Nonce::try_assume_unique_for_key(&nonce[..12]).ok()?;
                let vouched = aead::Aad::from(vouched);
                key.open_in_place_separate_tag(nonce, vouched, tag.into(), data, 0..).ok().map(drop)
            }
            Self::Ccm128(cipher) => ccm_decrypt(&**cipher, nonce, vouched, tag, data),
            Self::Ccm256(cipher) => ccm_decrypt(&**cipher, nonce, vouched, tag, data),
        }
    }
}

fn ccm_encrypt<C>(cipher: &C, nonce: &[u8; 16], vouched: &[u8], data: &mut [u8]) -> Option<[u8; 16]>
where
    C: AeadInOut<NonceSize = U11, TagSize = U16>,
{
    let nonce = nonce[..11].try_into().ok()?;
    let tag = cipher.encrypt_inout_detached(nonce, vouched, InOutBuf::from(data)).ok()?;
    tag.as_slice().first_chunk().copied()
}

fn ccm_decrypt<C>(
    cipher: &C,
    nonce: &[u8; 16],
    vouched: &[u8],
    tag: [u8; 16],
    data: &mut [u8],
) -> Option<()>
where
    C: AeadInOut<NonceSize = U11, TagSize = U16>,
{
    let nonce = nonce[..11].try_into().ok()?;
    cipher.decrypt_inout_detached(nonce, vouched, InOutBuf::from(data), &tag.into()).ok()
}

/// Whether two tags are the same, in a time that does not tell where they differ.
fn same(one: &[u8; 16], other: &[u8; 16]) -> bool {
    let differ = one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other));
    std::hint::black_box(differ) == 0
}

impl Seal {
    /// The keys of a session; `cipher` if its messages are encrypted.
    pub fn new(session: &Session, cipher: Option<Cipher>) -> Result<Self, Fault> {
        let secrecy = match cipher {
            None => None,
            Some(cipher) => {
                let (Some(ours), Some(theirs)) = (&session.encryption_key, &session.decryption_key)
                else {
                    return Err(internal("the session has no keys for encryption").into());
                };
                Some(Secrecy {
                    ours: Crypt::new(cipher, ours)?,
                    theirs: Crypt::new(cipher, theirs)?,
                    count: AtomicU64::new(0),
                })
            }
        };
        let signing = Signing::new(session.signing_algorithm, &session.signing_key)?;
        Ok(Self { session: session.session_id.0, signing, secrecy })
    }

    /// The session.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Whether messages are encrypted; if not, they are signed.
    pub fn encrypts(&self) -> bool {
        self.secrecy.is_some()
    }

    /// Signs a message of ours, which goes on in `payload`.
    pub fn sign(&self, message: &mut [u8], payload: &[u8]) -> Option<()> {
        message.get_mut(SIGNATURE)?.fill(0);
        let signature = self.signing.of(message, payload, Side::Client)?;
        message[SIGNATURE].copy_from_slice(&signature);
        Some(())
    }

    /// Signs a message as the server does.
    #[cfg(test)]
    pub fn sign_as_server(&self, message: &mut [u8]) {
        message[SIGNATURE].fill(0);
        let signature = self.signing.of(message, &[], Side::Server).expect("a signature");
        message[SIGNATURE].copy_from_slice(&signature);
    }

    /// Whether the server has signed a message. Takes the signature out of it.
    pub fn is_signed(&self, message: &mut [u8]) -> bool {
        let Some(place) = message.first_chunk_mut::<64>().map(|header| &mut header[SIGNATURE])
        else {
            return false;
        };
        let Some(told) = place.first_chunk().copied() else { return false };
        place.fill(0);
        let expected = self.signing.of(message, &[], Side::Server);
        expected.is_some_and(|expected| same(&expected, &told))
    }

    /// Encrypts a message of ours, behind the place of its envelope.
    pub fn encrypt(&self, frame: &mut [u8]) -> Option<()> {
        let secrecy = self.secrecy.as_ref()?;
        let (envelope, message) = frame.split_at_mut_checked(ENVELOPE)?;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&secrecy.count.fetch_add(1, Relaxed).to_le_bytes());
        nonce[8] = AFTER_LOGIN;
        envelope.fill(0);
        envelope[..4].copy_from_slice(&ENCRYPTED);
        envelope[NONCE..NONCE + 16].copy_from_slice(&nonce);
        let length = u32::try_from(message.len()).ok()?;
        envelope[LENGTH..LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        envelope[FLAGS] = 1;
        envelope[SESSION..].copy_from_slice(&self.session.to_le_bytes());
        let tag = secrecy.ours.encrypt(&nonce, &envelope[NONCE..], message)?;
        envelope[TAG].copy_from_slice(&tag);
        Some(())
    }

    /// Decrypts a message of the server's, behind its envelope.
    pub fn decrypt(&self, frame: &mut [u8]) -> Option<()> {
        let secrecy = self.secrecy.as_ref()?;
        let (envelope, message) = frame.split_at_mut_checked(ENVELOPE)?;
        let length = u32::try_from(message.len()).ok()?.to_le_bytes();
        let is_ours = envelope[..4] == ENCRYPTED
            && envelope[LENGTH..LENGTH + 4] == length
            && envelope[FLAGS..SESSION] == [1, 0]
            && envelope[SESSION..] == self.session.to_le_bytes();
        if !is_ours {
            return None;
        }
        let nonce = envelope[NONCE..].first_chunk()?;
        let tag = *envelope[TAG].first_chunk()?;
        secrecy.theirs.decrypt(nonce, &envelope[NONCE..], tag, message)
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
