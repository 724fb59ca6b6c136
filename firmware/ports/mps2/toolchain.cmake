# SPDX-License-Identifier: Apache-2.0
#
# arm-none-eabi-gcc for one board: cmake --toolchain firmware/ports/mps2/toolchain.cmake
# -DSBE_BOARD=mps2-an521 (Cortex-M33) or mps2-an385 (Cortex-M3).
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SBE_BOARD)

set(SBE_BOARD_CPUS "mps2-an521=cortex-m33+nofp+nodsp" "mps2-an385=cortex-m3")
foreach(entry IN LISTS SBE_BOARD_CPUS)
  string(REPLACE "=" ";" entry "${entry}")
  list(GET entry 0 board)
  if(board STREQUAL SBE_BOARD)
    list(GET entry 1 cpu)
  endif()
endforeach()
if(NOT cpu)
  message(FATAL_ERROR "SBE_BOARD is '${SBE_BOARD}'; the boards are mps2-an521 and mps2-an385")
endif()
set(CMAKE_C_FLAGS_INIT "-mcpu=${cpu} -mthumb -mfloat-abi=soft -ffunction-sections -fdata-sections")
