// The part of LiteRT's C API that the example uses.
//
// LiteRT's own headers, where they are on the include path. No package registry has them (see
// README.md), so that without them the same functions are declared here, as
// libLiteRt.so of ai-edge-litert 2.3.0 exports them; 2.1.6 and 2.2.0 have the same. In 2.1.0
// LiteRtCreateModelFromBuffer took no environment: with that library the program aborts.

#ifndef T2AUX_ONDEVICE_LITERT_API_H_
#define T2AUX_ONDEVICE_LITERT_API_H_

#if __has_include(<litert/c/litert_compiled_model.h>)

#include <litert/c/litert_any.h>
#include <litert/c/litert_common.h>
#include <litert/c/litert_compiled_model.h>
#include <litert/c/litert_environment.h>
#include <litert/c/litert_environment_options.h>
#include <litert/c/litert_model.h>
#include <litert/c/litert_options.h>
#include <litert/c/litert_tensor_buffer.h>

#else

#include <cstddef>
#include <cstdint>

extern "C" {

typedef struct LiteRtEnvironmentT* LiteRtEnvironment;
typedef struct LiteRtModelT* LiteRtModel;
typedef struct LiteRtSignatureT* LiteRtSignature;
typedef struct LiteRtTensorT* LiteRtTensor;
typedef struct LiteRtOptionsT* LiteRtOptions;
typedef struct LiteRtCompiledModelT* LiteRtCompiledModel;
typedef struct LiteRtTensorBufferT* LiteRtTensorBuffer;

typedef size_t LiteRtParamIndex;
typedef int LiteRtHwAcceleratorSet;

enum LiteRtStatus : int { kLiteRtStatusOk = 0, kLiteRtStatusErrorUnsupported = 5 };
enum LiteRtHwAccelerators : int { kLiteRtHwAcceleratorCpu = 1 };
enum LiteRtElementType : int { kLiteRtElementTypeFloat32 = 1, kLiteRtElementTypeInt32 = 2 };
enum LiteRtTensorBufferType : int { kLiteRtTensorBufferTypeHostMemory = 1 };
enum LiteRtTensorBufferLockMode : int {
  kLiteRtTensorBufferLockModeRead = 0,
  kLiteRtTensorBufferLockModeWrite = 1
};
enum LiteRtAnyType : int { kLiteRtAnyTypeInt = 2 };
enum LiteRtEnvOptionTag : int {
  kLiteRtEnvOptionTagAutoRegisterAccelerators = 24,  // bits of LiteRtHwAccelerators
  kLiteRtEnvOptionTagMinLoggerSeverity = 25,         // 0 logs all, 4 nothing
};

struct LiteRtAny {
  LiteRtAnyType type;
  union {
    int64_t int_value;
    const void* ptr_value;
  };
};

struct LiteRtEnvOption {
  LiteRtEnvOptionTag tag;
  LiteRtAny value;
};

struct LiteRtLayout {
  unsigned int rank : 7;
  bool has_strides : 1;
  int32_t dimensions[8];  // below 0: any
  uint32_t strides[8];
};

struct LiteRtRankedTensorType {
  LiteRtElementType element_type;
  LiteRtLayout layout;
};

static_assert(sizeof(LiteRtAny) == 16, "as the library has it");
static_assert(sizeof(LiteRtEnvOption) == 24, "as the library has it");
static_assert(sizeof(LiteRtLayout) == 68, "as the library has it");
static_assert(sizeof(LiteRtRankedTensorType) == 72, "as the library has it");

LiteRtStatus LiteRtCreateEnvironment(int, const LiteRtEnvOption*, LiteRtEnvironment*);
void LiteRtDestroyEnvironment(LiteRtEnvironment);

// The bytes must outlive the model.
LiteRtStatus LiteRtCreateModelFromBuffer(LiteRtEnvironment, const void*, size_t, LiteRtModel*);
void LiteRtDestroyModel(LiteRtModel);
LiteRtStatus LiteRtGetNumModelSignatures(LiteRtModel, LiteRtParamIndex*);
LiteRtStatus LiteRtGetModelSignature(LiteRtModel, LiteRtParamIndex, LiteRtSignature*);
LiteRtStatus LiteRtGetNumSignatureInputs(LiteRtSignature, LiteRtParamIndex*);
LiteRtStatus LiteRtGetNumSignatureOutputs(LiteRtSignature, LiteRtParamIndex*);
LiteRtStatus LiteRtGetSignatureInputName(LiteRtSignature, LiteRtParamIndex, const char**);
LiteRtStatus LiteRtGetSignatureOutputName(LiteRtSignature, LiteRtParamIndex, const char**);
LiteRtStatus LiteRtGetSignatureInputTensor(LiteRtSignature, const char*, LiteRtTensor*);
LiteRtStatus LiteRtGetSignatureOutputTensor(LiteRtSignature, const char*, LiteRtTensor*);
// Fails where the tensor has no rank.
LiteRtStatus LiteRtGetRankedTensorType(LiteRtTensor, LiteRtRankedTensorType*);

LiteRtStatus LiteRtCreateOptions(LiteRtOptions*);
void LiteRtDestroyOptions(LiteRtOptions);
LiteRtStatus LiteRtSetOptionsHardwareAccelerators(LiteRtOptions, LiteRtHwAcceleratorSet);

// The options may be destroyed after it.
LiteRtStatus LiteRtCreateCompiledModel(LiteRtEnvironment, LiteRtModel, LiteRtOptions,
                                       LiteRtCompiledModel*);
void LiteRtDestroyCompiledModel(LiteRtCompiledModel);
// The signature's number, the input's number in it, and the dimensions.
LiteRtStatus LiteRtCompiledModelResizeInputTensor(LiteRtCompiledModel, LiteRtParamIndex,
                                                  LiteRtParamIndex, const int*, size_t);
// The signature's number, the inputs in its order, the outputs in its order.
LiteRtStatus LiteRtRunCompiledModel(LiteRtCompiledModel, LiteRtParamIndex, size_t,
                                    LiteRtTensorBuffer*, size_t, LiteRtTensorBuffer*);

// The size is in bytes.
LiteRtStatus LiteRtCreateManagedTensorBuffer(LiteRtEnvironment, LiteRtTensorBufferType,
                                             const LiteRtRankedTensorType*, size_t,
                                             LiteRtTensorBuffer*);
void LiteRtDestroyTensorBuffer(LiteRtTensorBuffer);
LiteRtStatus LiteRtLockTensorBuffer(LiteRtTensorBuffer, void**, LiteRtTensorBufferLockMode);
LiteRtStatus LiteRtUnlockTensorBuffer(LiteRtTensorBuffer);

}  // extern "C"

#endif

#endif  // T2AUX_ONDEVICE_LITERT_API_H_
