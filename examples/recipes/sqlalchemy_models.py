"""The table of the SQLAlchemy recipes."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The declarative base of the tables."""


class Account(Base):
    """A user and a role."""

    __tablename__ = "accounts"

    email: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
