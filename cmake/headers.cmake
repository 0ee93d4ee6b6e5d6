# Header-only libraries are the same for every target, so a cross build takes the host's. Only the one folder is linked into
# the build tree: the host's whole include directory would break a cross compiler.
#
#   heed_headers(xsimd xsimd/xsimd.hpp)   defines the target heed_xsimd
function(heed_headers library header)
  find_path(HEED_${library}_DIR ${header} PATHS /usr/include REQUIRED DOC "Where <${header}> is found")
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/headers/${library})
  file(CREATE_LINK ${HEED_${library}_DIR}/${library} ${PROJECT_BINARY_DIR}/headers/${library}/${library} SYMBOLIC)
  add_library(heed_${library} INTERFACE)
  target_include_directories(heed_${library} SYSTEM INTERFACE ${PROJECT_BINARY_DIR}/headers/${library})
endfunction()
