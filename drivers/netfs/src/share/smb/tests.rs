// SPDX-License-Identifier: Apache-2.0
//! Against Samba: see `tests/services/netfs`.
