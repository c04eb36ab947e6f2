! Sends the fields of a simulation to Millstream, which has started this program.
!
!     call millstream_init()
!     do step = 0, steps - 1
!        ...
!        call millstream_send(step, "temperature", u)
!     end do
!     call millstream_finalize()
!
! A program that stays for many simulations asks for each of them after init:
!
!     do while (millstream_next(parameters, seed))
!        do step = 0, steps - 1
!           ...
!        end do
!     end do
!     call millstream_finalize()
!
! Link it with the C client: cc -c -x c -DMILLSTREAM_IMPLEMENTATION millstream.h.
!
! The first index of a Fortran array is the last axis of the grid: u(nx, ny) belongs to a study with
! the grid shape [ny, nx]. Fields are real(real32) or real(real64), contiguous, of rank 1 to 3.
! Each process (image, rank) that has a part of the fields makes all calls. `offset` says where
! the part begins, counted from 0, in the order of the array's own indices.
!
! After a failure, which is described on standard error, the program stops with status 1; unless it
! has asked for `status`, which is then not 0.
module millstream
   use, intrinsic :: iso_c_binding, only: c_char, c_double, c_int, c_loc, c_long_long, c_null_char, &
      c_ptr, c_size_t
   use, intrinsic :: iso_fortran_env, only: error_unit, int64, real32, real64
   implicit none
   private
   public :: millstream_init, millstream_send, millstream_next, millstream_finalize

   interface
      integer(c_int) function c_init() bind(c, name="millstream_init")
         import :: c_int
      end function
      integer(c_int) function c_finalize() bind(c, name="millstream_finalize")
         import :: c_int
      end function
      integer(c_int) function c_next(parameters, count, seed) bind(c, name="millstream_next")
         import :: c_double, c_int, c_long_long
         real(c_double), intent(out) :: parameters(*)
         integer(c_int), value :: count
         integer(c_long_long), intent(out) :: seed
      end function
      integer(c_int) function c_send(step, field, data, bytes, axes, shape, offset) &
         bind(c, name="millstream_send")
         import :: c_char, c_int, c_ptr, c_size_t
         integer(c_int), value :: step, axes
         character(kind=c_char), intent(in) :: field(*)
         type(c_ptr), value :: data
         integer(c_size_t), value :: bytes
         integer(c_size_t), intent(in) :: shape(*), offset(*)
      end function
   end interface

   interface millstream_send
      module procedure send_real32, send_real64
   end interface

contains

   subroutine millstream_init(status)
      integer, intent(out), optional :: status
      call report(c_init(), status)
   end subroutine

   subroutine millstream_finalize(status)
      integer, intent(out), optional :: status
      call report(c_finalize(), status)
   end subroutine

   ! Wait for the next simulation, in a study with `stays: true`; false if there are no more. Every
   ! process is told the same ones. `parameters` are filled in, in the order of the study; `seed` is
   ! a number from 0 to 2^63 - 1.
   logical function millstream_next(parameters, seed, status)
      real(real64), intent(out) :: parameters(:)
      integer(int64), intent(out), optional :: seed
      integer, intent(out), optional :: status
      real(c_double) :: values(size(parameters))
      integer(c_long_long) :: its_seed
      integer(c_int) :: found
      values = 0
      found = c_next(values, size(parameters, kind=c_int), its_seed)
      millstream_next = found == 1
      if (millstream_next) then
         parameters = values
         if (present(seed)) seed = its_seed
      end if
      call report(min(found, 0_c_int), status)
   end function

   subroutine send_real32(step, field, u, offset, status)
      integer, intent(in) :: step
      character(*), intent(in) :: field
      real(real32), intent(in), target, contiguous :: u(..)
      integer, intent(in), optional :: offset(:)
      integer, intent(out), optional :: status
      call send(step, field, c_loc(u), 4_c_size_t, shape(u), offset, status)
   end subroutine

   subroutine send_real64(step, field, u, offset, status)
      integer, intent(in) :: step
      character(*), intent(in) :: field
      real(real64), intent(in), target, contiguous :: u(..)
      integer, intent(in), optional :: offset(:)
      integer, intent(out), optional :: status
      call send(step, field, c_loc(u), 8_c_size_t, shape(u), offset, status)
   end subroutine

   subroutine send(step, field, data, bytes, extent, offset, status)
      integer, intent(in) :: step, extent(:)
      character(*), intent(in) :: field
      type(c_ptr), intent(in) :: data
      integer(c_size_t), intent(in) :: bytes
      integer, intent(in), optional :: offset(:)
      integer, intent(out), optional :: status
      integer(c_size_t) :: from(size(extent))
      from = 0
      if (present(offset)) then
         if (size(offset) /= size(extent)) then
            write (error_unit, "(a)") "millstream: send: offset has to have a number for each axis"
            call report(-1_c_int, status)
            return
         end if
         from = int(offset, c_size_t)
      end if
      call report(c_send(int(step, c_int), trim(field) // c_null_char, data, bytes, &
         size(extent, kind=c_int), reversed(int(extent, c_size_t)), reversed(from)), status)
   end subroutine

   pure function reversed(counts) result(backwards)
      integer(c_size_t), intent(in) :: counts(:)
      integer(c_size_t) :: backwards(size(counts))
      backwards = counts(size(counts):1:-1)
   end function

   subroutine report(failed, status)
      integer(c_int), intent(in) :: failed
      integer, intent(out), optional :: status
      if (present(status)) then
         status = int(failed)
      else if (failed /= 0) then
         error stop "millstream has failed"
      end if
   end subroutine
end module
