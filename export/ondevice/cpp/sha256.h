// SHA-256 (FIPS 180-4), of the files in an export's metadata.json.

#ifndef T2AUX_ONDEVICE_SHA256_H_
#define T2AUX_ONDEVICE_SHA256_H_

#include <string>

namespace t2aux {

// The digest of some bytes, as 64 hexadecimal digits in lower case.
std::string Sha256(const std::string& bytes);

}  // namespace t2aux

#endif  // T2AUX_ONDEVICE_SHA256_H_
